"""From statistics to a head table: the rules, and how far a decision can be trusted.

Letters: N clips   M queries of a clip   R resamples   "heads" in shapes is (layers, heads),
checkpoint order. Choices are numbers into "giw".
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oasis_cli.errors import UsageError
from oasis_cli.model.attention import Grid
from oasis_cli.model.heads.calibration import HeadStatistics, head_cost
from oasis_cli.model.heads.routing import GROUPS, HeadTable

RULES = ("budget", "threshold", "proportion", "argmin")

STABLE = 0.95
"""A head keeps its group when at least this share of resamples agrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How KLs become groups."""

    name: str = "budget"
    """budget: least total KL that costs at most `budget`. threshold: the cheapest group whose KL is
    at most tau. proportion: fixed counts in each layer, smallest KL first. argmin: the group of the
    smaller KL if that is at most tau, else global."""
    budget: float = 0.35
    """FLOP of attention, as a share of all heads being global."""
    tau_intra: float = math.log(2)
    """Nats; log 2 keeps half of the attention's mass, in the geometric mean."""
    tau_window: float = math.log(2)
    proportion: tuple[int, int, int] | None = None
    """Global, intra and window heads in each layer; None for equal shares."""
    min_global: int = 1
    """Global heads in each layer at least, so that every layer sees all of time."""

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise UsageError(f"there is no rule {self.name!r}", hint=f"rules: {', '.join(RULES)}")
        if not 0 < self.budget <= 1:
            raise UsageError(f"a budget is a share in (0, 1], not {self.budget}")
        if self.min_global < 0:
            raise UsageError(f"there cannot be {self.min_global} global heads in a layer")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A head table, and how sure each choice is."""

    table: HeadTable
    first: HeadTable
    """The rule's table, before unstable heads fell back."""
    same: Tensor
    """(layers, heads): share of resamples in which the rule gives the head its `first` group."""
    interval: Tensor
    """(2, 2, layers, heads): (intra, window) x (low, high), 95 % interval of the mean KL."""
    cost: tuple[float, float, float]
    """FLOP of one (global, intra, window) head on `grid`."""
    grid: Grid
    multiplier: float | None
    """Nats that the budget rule pays to save the cost of one global head; None for other rules."""

    @property
    def spent(self) -> float:
        """FLOP of attention, as a share of all heads being global."""
        return spent(self.table, self.cost)

    @property
    def stable(self) -> float:
        """Share of heads that at least `STABLE` of the resamples agree on."""
        return float((self.same >= STABLE).double().mean())


def assign_heads(
    statistics: HeadStatistics,
    rule: Rule | None = None,
    *,
    grid: Grid | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Assignment:
    """Apply a rule, repeat it on bootstrap resamples, let unstable heads fall back.

    grid: where costs are counted, `HeadStatistics.cost_grid` if None. resamples: 0 to skip the
    bootstrap. A head on which fewer than 95 % of the resamples agree gets the more global of its
    group and the group it most often gets instead, except under the proportion rule, whose counts
    are fixed. That can cost more than the budget; `Decision.spent` says.
    """
    rule = rule or Rule()
    grid = grid or statistics.cost_grid
    cost = head_cost(grid, statistics.window, statistics.head_width)
    mean = statistics.mean_kl
    choice, multiplier = choose_groups(mean[None], cost, rule)
    first, final = choice[0], choice[0].clone()
    same = torch.ones(first.shape, dtype=torch.float64)
    interval = mean[:, None].expand(-1, 2, -1, -1)
    if resamples:
        means = bootstrap(statistics.kl, resamples, seed)
        interval = means.quantile(torch.tensor([0.025, 0.975]).double(), dim=0).transpose(0, 1)
        votes = choose_groups(means, cost, rule)[0]
        share = torch.stack([(votes == group).double().mean(0) for group in range(len(GROUPS))])
        same = share.gather(0, first[None])[0]
        other = share.scatter(0, first[None], -1.0).argmax(0)
        if rule.name != "proportion":
            final = torch.where(same < STABLE, torch.minimum(first, other), first)
    return Assignment(
        table=_table(final),
        first=_table(first),
        same=same,
        interval=interval,
        cost=cost,
        grid=grid,
        multiplier=float(multiplier[0]) if rule.name == "budget" else None,
    )


def spent(table: HeadTable, cost: tuple[float, float, float]) -> float:
    """FLOP of attention under `table`, as a share of all heads being global."""
    letters = "".join(table.layers)
    return sum(cost[GROUPS.index(letter)] for letter in letters) / (len(letters) * cost[0])


def bootstrap(kl: Tensor, resamples: int, seed: int) -> Tensor:
    """Means of resampled KLs: clips drawn with replacement, then queries inside each drawn clip.

    kl: (2, N, M, layers, heads). Returns (R, 2, layers, heads) float64. With one clip only the
    sampling of queries is seen, not the difference between clips.
    """
    clips, queries = kl.shape[1:3]
    draw = torch.Generator().manual_seed(seed)
    flat = kl.double().movedim(0, 2).reshape(clips * queries, -1)
    means = []
    for _ in range(resamples):
        drawn = torch.randint(clips, (clips, 1), generator=draw) * queries
        drawn = drawn + torch.randint(queries, (clips, queries), generator=draw)
        means.append(torch.bincount(drawn.flatten(), minlength=clips * queries))
    weights = torch.stack(means).double() / (clips * queries)
    return (weights @ flat).unflatten(1, (2, *kl.shape[3:]))


def choose_groups(
    kl: Tensor, cost: tuple[float, float, float], rule: Rule
) -> tuple[Tensor, Tensor]:
    """Apply a rule to many sets of KLs at once.

    kl: (R, 2, layers, heads). Returns choices (R, layers, heads) and budget multipliers (R,).
    """
    intra, window = kl.unbind(1)
    loss = torch.stack([torch.zeros_like(intra), intra, window])
    none = kl.new_zeros(len(kl))
    if rule.name == "budget":
        return _budget(loss, torch.tensor(cost).to(loss) / cost[0], rule)
    if rule.name == "proportion":
        return _floor(_proportion(intra, window, rule), loss, rule.min_global), none
    if rule.name == "threshold":
        local = torch.where(intra <= rule.tau_intra, 1, 0)
        choice = torch.where(window <= rule.tau_window, 2, local)
    else:
        nearer = torch.where(intra <= window, 1, 2)
        limit = torch.where(nearer == 1, rule.tau_intra, rule.tau_window)
        choice = torch.where(torch.minimum(intra, window) <= limit, nearer, 0)
    return _floor(choice, loss, rule.min_global), none


def _floor(choice: Tensor, loss: Tensor, least: int) -> Tensor:
    """Make `least` heads of each layer global: those that lose most by what was chosen for them.

    loss: (3, R, layers, heads), what each group loses; choice: (R, layers, heads).
    """
    gain = loss.gather(0, choice[None])[0] - loss[0]
    gain = gain.masked_fill(choice == 0, math.inf)  # they are global already
    rank = gain.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return torch.where(rank < least, 0, choice)


def _proportion(intra: Tensor, window: Tensor, rule: Rule) -> Tensor:
    """Per layer: the smallest window KLs, then among the rest the smallest intra KLs."""
    heads = intra.shape[-1]
    third = heads // 3
    _, n_intra, n_window = rule.proportion or (heads - 2 * third, third, third)
    if rule.proportion and (sum(rule.proportion) != heads or min(rule.proportion) < 0):
        raise UsageError(
            f"proportion {rule.proportion} does not add up to the {heads} heads of a layer"
        )
    in_window = window.argsort(dim=-1, stable=True).argsort(dim=-1) < n_window
    rest = intra.masked_fill(in_window, math.inf)
    in_intra = (rest.argsort(dim=-1, stable=True).argsort(dim=-1) < n_intra) & ~in_window
    return torch.where(in_window, 2, torch.where(in_intra, 1, 0))


def _budget(loss: Tensor, cost: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Least sum of KL + multiplier * cost, the multiplier as small as the budget allows.

    loss: (3, R, layers, heads); cost: (3,) as shares of a global head. The least floor of global
    heads is part of each step, so the answer is the best one for its multiplier.
    """
    column = cost[:, None, None, None]

    def best(multiplier: Tensor) -> tuple[Tensor, Tensor]:
        total = loss + multiplier[:, None, None] * column
        choice = _floor(total.argmin(0), total, rule.min_global)
        return choice, cost[choice].mean((1, 2)) > rule.budget + 1e-9

    low = loss.new_zeros(loss.shape[1])
    choice, over = best(low)
    if not over.any():
        return choice, low
    high = torch.full_like(low, 1e9)
    if best(high)[1].any():
        heads = loss.shape[-1]
        least = (rule.min_global + (heads - rule.min_global) * float(cost.min())) / heads
        raise UsageError(
            f"a budget of {rule.budget:.0%} cannot be met: {rule.min_global} of {heads} heads stay "
            f"global in each layer, which alone needs {least:.0%}",
            hint="raise the budget, lower the global heads, or use larger or longer clips",
        )
    high = torch.where(over, high, low)
    for _ in range(60):
        # Multipliers span many powers of ten: halve the ratio while it is large.
        middle = torch.where(high > 1e-3, (low.clamp(min=1e-6) * high).sqrt(), (low + high) / 2)
        over = best(middle)[1]
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return best(high)[0], high


def _table(choice: Tensor) -> HeadTable:
    """Choices (layers, heads) as letters."""
    return HeadTable(tuple("".join(GROUPS[group] for group in row) for row in choice.tolist()))
