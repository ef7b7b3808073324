import math

import pytest
import torch
from torch import nn

from ebmm.steady import COLLAPSED, FEW, LOOK, MANY, Steady


def watched(averaging=0.0):
    model = nn.Linear(2, 1)
    return Steady(model, torch.optim.AdamW(model.parameters(), lr=0.1), averaging), model


def set_to(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_outlying_gradients_are_left_out_once_enough_are_known():
    steady, _ = watched()
    assert steady.accepts(1.0, 1e6)
    assert all(steady.accepts(1.0, 1.0) for _ in range(30))
    assert steady.accepts(1.0, 9.9) and not steady.accepts(1.0, 10.1)
    assert steady.skipped == steady.skipped_in_a_row == 1
    assert steady.accepts(1.0, 1.0) and (steady.skipped, steady.skipped_in_a_row) == (1, 0)


@pytest.mark.parametrize(("norm", "accepted"), [(49.0, True), (51.0, False)])
def test_the_measure_is_the_median_of_the_last_hundred(norm, accepted):
    steady, _ = watched()
    assert all(steady.accepts(1.0, one) for one in [1.0] * 60 + [9.0] * 50)
    assert steady.accepts(1.0, norm) is accepted  # ten times the mean of 1 and 9


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (math.inf, 1.0), (1.0, math.nan)])
def test_what_is_not_finite_is_left_out(loss, norm):
    steady, _ = watched()
    assert not steady.accepts(loss, norm) and steady.norms == {}


def test_a_lesson_is_measured_by_itself():
    steady, _ = watched()
    for _ in range(50):
        assert steady.accepts(0.01, 1e-3, lesson=0) and steady.accepts(1.0, 1.0, lesson=1)
    assert not steady.accepts(0.01, 0.1, lesson=0) and not steady.accepts(1.0, 100.0, lesson=1)


def test_gradients_that_stay_larger_are_the_new_measure():
    steady, _ = watched()
    for _ in range(100):
        steady.accepts(1.0, 1.0)
    accepted = [steady.accepts(1.0, 50.0) for _ in range(60)]
    assert not any(accepted[:40]) and accepted[-1]


def test_a_collapse_brings_good_weights_back_and_halves_the_steps():
    steady, model = watched()
    set_to(model, 1.0)
    for _ in range(2 * LOOK):
        steady.after(1.0)
    set_to(model, 7.0)
    steady.optimiser.state["something"] = {}
    for _ in range(3 * LOOK):
        steady.after(20 * COLLAPSED)
    assert model.weight.unique().item() == 1.0 and not steady.optimiser.state
    assert steady.returns >= 1 and steady.factor == 0.5**steady.returns


def test_a_collapse_that_is_over_brings_weights_back_once():
    steady, _ = watched()
    for loss in (1.0, 1.0, 20 * COLLAPSED, 1.0, 1.0):
        for _ in range(LOOK):
            steady.after(loss)
    assert steady.returns == 1


def leave_out(steady, number):
    for _ in range(number):
        assert not steady.accepts(1.0, 100.0)
        steady.after(1.0)


def go_on(steady, number):
    for _ in range(number):
        assert steady.accepts(1.0, 1.0)
        steady.after(1.0)


def test_many_updates_left_out_in_a_row_bring_good_weights_back():
    steady, model = watched()
    set_to(model, 1.0)
    go_on(steady, 2 * LOOK)
    set_to(model, 7.0)
    leave_out(steady, MANY - 1)
    assert steady.returns == 0 and model.weight.unique().item() == 7.0
    leave_out(steady, 1)
    assert steady.returns == 1 and steady.factor == 0.5 and model.weight.unique().item() == 1.0
    go_on(steady, 1)
    assert steady.returns == 1
    leave_out(steady, 2 * MANY)
    assert steady.returns == 3 and steady.factor == 0.125


def test_what_is_kept_is_brought_back_as_often_as_need_be():
    steady, model = watched(averaging=0.5)
    set_to(model, 1.0)
    go_on(steady, 2 * LOOK)
    for _ in range(2):
        set_to(model, 7.0)
        leave_out(steady, MANY)
        assert model.weight.unique().item() == 1.0


def test_the_measure_of_gradients_comes_back_with_the_weights():
    steady, _ = watched()
    go_on(steady, 2 * LOOK)
    for _ in range(3 * LOOK):
        assert steady.accepts(2.0, 9.0)
        steady.after(2.0)
    leave_out(steady, MANY)
    assert steady.returns == 1 and not steady.accepts(1.0, 20.0)


@pytest.mark.parametrize(("number", "kept"), [(FEW, 7.0), (FEW + 1, 1.0)])
def test_weights_under_which_updates_are_left_out_are_not_kept(number, kept):
    steady, model = watched()
    set_to(model, 1.0)
    go_on(steady, 2 * LOOK)
    set_to(model, 7.0)
    leave_out(steady, number)
    go_on(steady, LOOK - number)
    assert steady.kept[0].unique().item() == kept


def test_weights_are_not_kept_while_updates_are_being_left_out():
    steady, model = watched()
    set_to(model, 1.0)
    go_on(steady, 3 * LOOK - FEW)
    set_to(model, 7.0)
    leave_out(steady, MANY)
    assert steady.returns == 1 and model.weight.unique().item() == 1.0


def test_a_new_lesson_is_no_collapse():
    steady, model = watched()
    set_to(model, 1.0)
    for _ in range(2 * LOOK):
        steady.after(1.0)
    steady.new_lesson()
    for _ in range(4 * LOOK):
        steady.after(100.0)
    assert steady.returns == 0 and steady.factor == 1.0


@pytest.mark.parametrize(("number", "loss"), [(1, 0.01), (LOOK, 0.1)])
def test_easy_first_batches_are_no_measure_for_those_that_follow(number, loss):
    steady, _ = watched()
    for _ in range(number):
        steady.after(loss)
    for _ in range(8 * LOOK):
        steady.after(5.0)
    assert steady.returns == 0


def test_the_average_follows_the_weights_and_is_what_a_run_ends_with():
    steady, model = watched(averaging=0.9)
    for value in range(1, 201):
        set_to(model, float(value))
        steady.after(1.0)
    steady.finish()
    assert model.weight.unique().item() == pytest.approx(200 - 9, abs=0.1)  # 0.9/(1 − 0.9) steps behind


def test_the_average_hardly_holds_what_the_first_step_began_with():
    steady, model = watched(averaging=0.99)
    set_to(model, 11.0)
    for weight in steady.average:
        weight.zero_()
    steady.after(1.0)
    steady.finish()
    assert model.weight.unique().item() == pytest.approx(10)


def test_without_averaging_the_last_weights_stay():
    steady, model = watched(averaging=0.0)
    set_to(model, 3.0)
    steady.after(1.0)
    steady.finish()
    assert model.weight.unique().item() == 3.0


def test_it_goes_on_from_its_state():
    first, model = watched(averaging=0.5)
    second, other = watched(averaging=0.5)
    for step in range(40):
        first.accepts(1.0, 1.0 + step)
        first.after(1.0 + step)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(model.state_dict())
    for steady in (first, second):
        steady.accepts(5.0, 700.0)
        steady.after(5.0)
    for name, value in first.state_dict().items():
        if name in ("kept", "average"):
            assert all(map(torch.equal, value, second.state_dict()[name]))
        else:
            assert value == second.state_dict()[name]
