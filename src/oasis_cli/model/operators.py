"""Functions that a compiler takes as one operator, and that cost nothing where nothing is compiled.

Calling one of `torch.library.custom_op` loads PyTorch's compiler, which takes a second or more, and
each call takes longer than launching a small kernel does.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Made = TypeVar("Made")


def operator(
    name: str, fake: Callable[Given, Made], *, mutates: Iterable[str] = ()
) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """Register a function, without gradients, as the operator `name`.

    fake: takes the same and returns empty tensors like those that the function makes; where they
    are made is all a compiler wants to know. mutates: parameters that the function writes into. A
    call goes to the operator while something is compiled or exported, else straight to the
    function.
    """

    def register(function: Callable[Given, Made]) -> Callable[Given, Made]:
        known: Any = torch.library.custom_op(name, function, mutates_args=tuple(mutates))
        known.register_fake(fake)

        @wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Made:
            if torch.compiler.is_compiling():
                made: Made = known(*args, **kwargs)
                return made
            return function(*args, **kwargs)

        return call

    return register
