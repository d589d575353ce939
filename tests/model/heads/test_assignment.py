"""From statistics to a table: rules, bootstrap, and what an unstable head becomes."""

import dataclasses

import pytest
import torch
from toy_networks import built_heads, clips, routed_toy

from oasis_cli.model.heads.assignment import Rule, assign_heads, bootstrap, spent
from oasis_cli.model.heads.calibration import (
    measure_heads,
)
from oasis_cli.model.heads.routing import HeadTable

WINDOW = (3, 5, 5)


@pytest.mark.parametrize("rule", ["budget", "threshold", "proportion", "argmin"])
def test_heads_built_for_a_group_get_it(rule):
    statistics = measure_heads(built_heads(), clips(size=(128, 160)), queries=64)
    proportion = (2, 1, 1) if rule == "proportion" else None
    choice = Rule(name=rule, budget=0.6, proportion=proportion)
    decision = assign_heads(statistics, choice, grid=(5, 32, 32), resamples=50)
    assert decision.table.layers == ("giwg", "giwg")


@pytest.mark.parametrize("rule", ["budget", "threshold", "proportion", "argmin"])
def test_every_rule_keeps_a_global_head_in_each_layer(rule):
    statistics = measure_heads(routed_toy(layers=3), clips(), queries=16)
    choice = Rule(name=rule, budget=0.6, tau_intra=99, tau_window=99, min_global=1)
    table = assign_heads(statistics, choice, resamples=20).table
    assert all("g" in groups for groups in table.layers)


def test_a_budget_is_met_by_the_least_loss():
    statistics = measure_heads(routed_toy(heads=3, layers=1), clips(), queries=32)
    rule = Rule(budget=0.75, min_global=0)
    decision = assign_heads(statistics, rule, resamples=0)
    kl = torch.cat([torch.zeros(1, 1, 3), statistics.mean_kl])[:, 0]

    def loss(groups):
        return sum(float(kl["giw".index(letter), head]) for head, letter in enumerate(groups))

    tables = [HeadTable((a + b + c,)) for a in "giw" for b in "giw" for c in "giw"]
    spend = decision.spent
    assert spend <= 0.75
    affordable = [t.layers[0] for t in tables if spent(t, decision.cost) <= spend + 1e-9]
    assert loss(decision.table.layers[0]) == pytest.approx(min(map(loss, affordable)))


def test_the_bootstrap_is_reproducible_and_covers_the_mean():
    statistics = measure_heads(routed_toy(), clips(3), queries=32)
    means = bootstrap(statistics.kl, 200, seed=3)
    assert torch.equal(means, bootstrap(statistics.kl, 200, seed=3))
    assert not torch.equal(means, bootstrap(statistics.kl, 200, seed=4))
    decision = assign_heads(statistics, Rule(budget=0.7), resamples=200)
    low, high = decision.interval.unbind(1)
    assert ((low <= statistics.mean_kl) & (statistics.mean_kl <= high)).all()


def test_an_unstable_head_falls_to_the_more_global_group():
    statistics = measure_heads(routed_toy(heads=3, layers=1), clips(), queries=16)
    kl = torch.full_like(statistics.kl, 0.1)
    kl[..., 0] = 5.0  # head 0: global; head 1: window in one clip, far from it in the other
    kl[1, 0, :, 0, 1], kl[1, 1, :, 0, 1] = 0.0, 1.3
    kl[0, ..., 1] = 5.0
    mixed = type(statistics)(
        kl,
        statistics.error,
        statistics.norm,
        (5, 16, 16),
        (5, 16, 16),
        WINDOW,
        statistics.head_width,
    )
    decision = assign_heads(mixed, Rule(name="threshold"))
    assert decision.first.layers == ("gww",)
    assert decision.table.layers == ("ggw",)
    assert decision.same[0, 1] < 0.95
    assert decision.stable == pytest.approx(2 / 3)


def test_fixed_proportions_stay_when_heads_are_unstable():
    """Two clips that disagree: under the budget rule such heads fall back, here they cannot."""
    kl = torch.zeros(2, 2, 4, 1, 4)
    kl[:, 0, :, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    kl[:, 1, :, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    statistics = dataclasses.replace(measure_heads(routed_toy(), clips(), queries=4), kl=kl)
    decision = assign_heads(statistics, Rule(name="proportion", proportion=(1, 1, 2)))
    assert decision.stable < 1
    assert decision.table == decision.first
    assert sorted(decision.table.layers[0]) == list("giww")
