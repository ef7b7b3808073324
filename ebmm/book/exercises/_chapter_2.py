"""Judges of the exercises of chapter 2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ebmm.book.exercises._answers import function, number, numbers, parts, seeded, tensor, varied
from ebmm.book.exercises.variant import Drawn
from ebmm.book.exercises.verdict import exercise, need


@exercise("2.1", 'a dict with the keys "slope" and "above" (functions) and "where" (a number)')
def parabola(answer: Any) -> str:
    slope, above, where = parts(answer, "slope", "above", "where")
    function(slope, '"slope"')
    function(above, '"above"')
    for dim, queries, seed in ((8, 4, 21), (5, 3, 22)):
        M = torch.randn(dim, dim, generator=varied(seed))
        M = M + M.T
        _try_slope(slope, torch.rand(queries, dim, generator=varied(seed + 10)), M, c=0.7)
        _try_above(above, M)
        _try_above(above, -M @ M.T)

    where = number(where, '"where"')
    need(abs(where) > 1e-3, "That is so in centred coordinates. What is x there?")
    need(abs(where - 0.5) < 1e-3, "Inside the box the gradient must be zero. At which point is it zero, whatever M is?")
    return "Enough curvature makes one minimum, and puts it at the centre of the box: such an energy remembers nothing."


def _try_slope(slope: Any, x: Tensor, M: Tensor, c: float) -> None:
    given = tensor(slope(x.clone(), M.clone(), c), x.shape, 'What "slope" returns').float()
    s = 2 * x - 1
    right = 2 * (c * s - s @ M)
    for other, mistake in (
        (right / 2, "That is the gradient with respect to s. The chain rule through s = 2x - 1 gives a factor."),
        (-right, "That points downhill. The gradient points up."),
        (2 * (c * x - x @ M), "Put s = 2x - 1 into it, not x."),
        (-2 * s @ M, "The second term of the energy is missing."),
        (2 * (c * s - s @ M / 2), "In sᵀMs the vector s stands twice, and M is symmetric. Both count."),
        (c * s - 2 * s @ M, "The chain rule through s = 2x - 1 holds for the second term as well."),
    ):
        need(not torch.allclose(given, other, atol=1e-4), mistake)
    need(torch.allclose(given, right, atol=1e-4), "It differs from what autograd finds. Compare the terms one by one.")


def _try_above(above: Any, M: Tensor) -> None:
    given = number(above(M.clone()), 'What "above" returns')
    eigenvalues = torch.linalg.eigvalsh(M)
    for other, mistake in (
        (eigenvalues[0], "With so small a c the energy still curves down in some directions. Ask for all of them."),
        (eigenvalues.abs().max(), "The size of an eigenvalue is not the point. Its sign tells whether it curves down."),
        (M.diagonal().max(), "Not only the directions of the coordinates count."),
        (M.trace(), "The trace adds up all curvatures. Each of them alone must be positive."),
        (4 * eigenvalues[-1], "The factor of the chain rule stands before c as well as before M."),
    ):
        need(abs(other - eigenvalues[-1]) < 1e-3 or abs(given - other) > 1e-3, mistake)
    need(
        abs(given - eigenvalues[-1]) < 1e-3,
        'What "above" returns is off. The second derivatives, as a matrix, must be positive definite.',
    )


STEPS = 5
CONDITIONS = Drawn(
    {"a": 2, "b": 10, "c": 100},
    lambda random: {"a": random.randint(3, 6), "b": random.randint(12, 25), "c": random.randint(60, 180)},
    text=("$\\chi = {a}, {b}, {c}$",),
    solution=("in ({a}, {b}, {c})", "χ = {c}"),
)


def _left(gamma: Tensor | float, mu: Tensor | float, eigenvalues: Tensor) -> Tensor:
    """By what the steps of (2.7) multiply the error in the worst direction; eigenvalues along the last dimension."""
    x = torch.ones_like(gamma * eigenvalues)
    v = torch.zeros_like(x)
    for _ in range(STEPS):
        v = mu * v - gamma * eigenvalues * (x + mu * v)
        x = x + v
    return x.abs().amax(-1)


@exercise(
    "2.2", 'a dict with the keys "step" (a function), "left" (three numbers), "with momentum" (three pairs)', CONDITIONS
)
def step_and_condition(answer: Any, given: Any) -> str:
    conditions = given.a, given.b, given.c
    step, left, settings = parts(answer, "step", "left", "with momentum")
    function(step, '"step"')
    for low, high in ((1.0, 10.0), (0.3, 0.7), (25.0, 200.0)):
        best_step = number(step(low, high), 'What "step" returns')
        need(abs(best_step * high - 2) > 1e-4, "At that step the steepest direction jumps across the valley for ever.")
        need(
            abs(best_step * high - 1) > 1e-4,
            "That is best for the steepest direction alone. Mind the flattest as well.",
        )
        need(
            math.isclose(best_step, 2 / (low + high), rel_tol=1e-4),
            "Draw the size of the factor 1 - γλ at both ends against γ. The best step is where the two cross.",
        )

    for chi, one in zip(conditions, numbers(left, 3, '"left"'), strict=True):
        factor = (chi - 1) / (chi + 1)
        need(abs(one / factor - 1) > 0.01, f"χ = {chi}: that is what one step leaves. Take five.")
        need(
            abs(one / factor**STEPS - 1) < 0.02,
            f"χ = {chi}: five of the best single steps leave something else. Ask for the worst direction.",
        )

    need(
        isinstance(settings, list | tuple) and len(settings) == 3,
        '"with momentum" must be three pairs, one for each χ.',
    )
    gains = []
    for chi, pair in zip(conditions, settings, strict=True):
        gamma, mu = numbers(pair, 2, f"χ = {chi}: a step and a momentum")
        need(0 <= mu < 1, f"χ = {chi}: a momentum lies in [0, 1).")
        eigenvalues = torch.linspace(1, chi, 200)
        plain, own = ((chi - 1) / (chi + 1)) ** STEPS, _left(gamma, mu, eigenvalues).item()
        gammas, mus = torch.linspace(0.2, 1.4, 60) * 2 / (1 + chi), torch.linspace(0, 0.98, 50)
        best = _left(gammas[:, None, None], mus[:, None], eigenvalues).min().item()
        helps, same_step = own < 0.999 * plain, math.isclose(gamma * (1 + chi), 2, rel_tol=1e-3)
        need(helps or not same_step, f"χ = {chi}: with the step from before no momentum helps. Choose the step anew.")
        need(helps, f"χ = {chi}: (2.7) with these two leaves more than the best step alone.")
        need(
            own < plain - 0.8 * (plain - best),
            f"χ = {chi}: these two help, but others help much more. Search both, among shorter steps too.",
        )
        gains.append(f"{plain / own:.1f}")
    return (
        f"Momentum leaves {gains[0]}, {gains[1]} and {gains[2]} times less, for χ = {given.a}, {given.b} and {given.c}."
        " Where it is needed most, five gradients do little: shape the energy."
    )


@exercise("2.3", 'a dict with the keys "apart" and "bits", two functions')
def parting(answer: Any) -> str:
    apart, bits = parts(answer, "apart", "bits")
    function(apart, '"apart"')
    function(bits, '"bits"')
    for delta, product in ((1.0, 40.0), (1.0, 6.0), (0.5, 6.0), (1.6, 5.0), (1.0, 3.0), (0.5, 2.0), (1.6, 3.0)):
        _try_apart(apart, delta, beta=product / delta**2)

    for dim in (64, 100):
        given = number(bits(dim), 'What "bits" returns') * dim
        need(abs(given - 8) > 0.01, "A bit that differs adds more than 1 to δ²: in centred coordinates bits are ±1.")
        need(abs(given - 1) > 0.01, "That is for strings that differ in every bit.")
        need(abs(given - 4) > 0.01, "A bit that differs is 2 apart in centred coordinates. What does it add to δ²?")
        need(abs(given - 2) < 0.01, "Find δ² first: how many bits differ, and what each adds. Then use β = 4/δ².")
    return "The longer the strings, the lower the β at which two of them part, since their distance grows with d."


def _try_apart(apart: Any, delta: float, beta: float) -> None:
    given = number(apart(delta, beta), 'What "apart" returns')
    length = delta / 2
    right = length
    for _ in range(3000):
        right = length * math.tanh(beta * length * right)
    close, parted = 0.02 * delta, beta * delta**2 > 4
    need(given > -close, "A distance is not negative.")
    if parted:
        need(
            given > close,
            "The two have parted, and it finds 0. Start beside the centre: at the centre itself a read rests.",
        )
        need(abs(given - right / 2) > close, "That is a distance in the box. In centred coordinates it is another.")
        need(abs(given - 2 * right) > close, "That is how far the two ends are from each other, not from the centre.")
        need(
            abs(given - length) > 1e-3 * delta or abs(length - right) < close,
            "It returns the pattern itself. Just above the β at which they part, the read ends nearer to the centre.",
        )
    else:
        need(given < close, "It finds two patterns apart below β = 4/δ². Too few steps? Coordinates of the box?")
    need(abs(given - right) < close, "Above β = 4/δ² the read ends elsewhere: at y s₁, where y = tanh(β ‖s₁‖² y).")


TEMPERATURES = (0.002, 0.05, 0.2)


@exercise("2.4", 'a dict with the keys "step" (a function) and "shares" (a dict: five numbers for each temperature)')
def langevin(answer: Any) -> str:
    step, shares = parts(answer, "step", "shares")
    _try_step(function(step, '"step"'))
    need(
        isinstance(shares, Mapping) and set(TEMPERATURES) <= set(shares),
        f'"shares" must be a dict with the temperatures {TEMPERATURES} as keys.',
    )
    for temperature in TEMPERATURES:
        given = numbers(shares[temperature], 5, f"τ = {temperature}: the shares of the five patterns")
        need(abs(sum(given) - 1) < 0.01, f"τ = {temperature}: the shares of all reads add up to 1.")
        need(max(given) < 0.9, f"τ = {temperature}: nearly all reads end at one pattern, as they do without noise.")
        right = _shares(temperature)
        need(
            max(abs(a - b) for a, b in zip(given, right, strict=True)) < 0.07,
            f"τ = {temperature}: measured again, some share is another. Take 100 noisy steps with γ = 0.02 and β = 40, "
            "from halfway between the two close patterns; draw noise anew for each read and step; finish without.",
        )
    return "A little noise turns one arbitrary answer into a sample of the plausible ones. Much forgets the query."


def _try_step(step: Any) -> None:
    x, slope = torch.rand(2, 300, 5, generator=seeded(24)).unbind()

    def moved(x: Tensor, slope: Tensor, gamma: float, temperature: float) -> Tensor:
        return tensor(step(x.clone(), slope.clone(), gamma, temperature), x.shape, 'What "step" returns').float()

    torch.default_generator.manual_seed(24)
    without = moved(x, slope, 0.3, 0.0)
    need(not torch.allclose(without, (x + 0.3 * slope).clamp(0, 1)), "Without noise it goes uphill. Check the sign.")
    need(not torch.allclose(without, x - 0.3 * slope), "It leaves the box. Π clips to it.")
    need(torch.allclose(without, (x - 0.3 * slope).clamp(0, 1)), "Without noise, τ = 0, it must be a step of (2.4).")

    gamma, temperature, middle = 0.001, 0.02, torch.full((4000, 5), 0.5)
    off = moved(middle, torch.zeros_like(middle), gamma, temperature) - middle
    need(off.any(), "It draws no noise.")
    need(
        off.mean(0).std() < 0.2 * off.std() and off.mean(1).std() < 0.7 * off.std(),
        "Queries or coordinates share their noise. Draw some for each number.",
    )
    for size, mistake in (
        (math.sqrt(gamma * temperature), "The noise is too weak by √2."),
        (2 * gamma * temperature, "The noise is scaled by its variance. Take the root."),
        (gamma * math.sqrt(2 * temperature), "The noise is multiplied by γ. Only its variance goes with γ."),
        (math.sqrt(2 * temperature), "The noise does not know γ. Smaller steps ask for less noise in each."),
    ):
        need(abs(off.std() / size - 1) > 0.1, mistake)
    tails = (off / off.std()).pow(4).mean()  # 3 where they are those of a normal distribution
    need(
        abs(off.std() / math.sqrt(2 * gamma * temperature) - 1) < 0.1
        and abs(off.mean()) < 0.1 * off.std()
        and abs(tails - 3) < 0.3,
        "The noise must be normal with mean 0 and variance 2γτ.",
    )
    noisy = moved(x, slope, 0.3, 0.5)
    need(noisy.min() >= 0 and noisy.max() <= 1, "With noise it leaves the box. Clip last.")
    again = moved(middle, torch.zeros_like(middle), gamma, temperature) - middle
    need(not torch.equal(off, again), "It draws the same noise at each step: then it is a push and no noise.")


def _shares(temperature: float) -> list[float]:
    """How many of 1000 reads end at each of the five patterns, of which the last two are close."""
    angles = torch.deg2rad(torch.tensor([105.0, 190.0, 275.0, 5.0, 35.0]))
    X = 0.8 * torch.stack([angles.cos(), angles.sin()], -1)  # centred
    gamma, generator = 0.02, seeded(25)

    def update(s: Tensor) -> Tensor:  # (2.11) with β = 40
        return torch.softmax(40 * s @ X.T, -1) @ X

    s = X[3:].mean(0).expand(1000, 2)
    for _ in range(100):
        noise = math.sqrt(2 * gamma * temperature) * torch.randn(s.shape, generator=generator)
        slope = 2 * (s - update(s))  # (2.10), in the box
        s = (s + 2 * (noise - gamma * slope)).clamp(-1, 1)
    for _ in range(30):
        s = update(s)
    return (torch.cdist(s, X).argmin(1).bincount(minlength=5) / len(s)).tolist()


CENTRES = torch.tensor([[0.2, 0.2], [0.8, 0.35], [0.35, 0.8]])


def _wells() -> Tensor:
    """The matrix A of (2.5) that the chapter chose."""
    cosine, sine = math.cos(0.6), math.sin(0.6)
    return torch.diag(torch.tensor([1 / 0.2, 1 / 0.07])) @ torch.tensor([[cosine, sine], [-sine, cosine]])


def _read(x: Tensor, steps: Any, momenta: Any) -> Tensor:
    """(2.7) on the wells of (2.5); a step size is a number, or a tensor that broadcasts with (..., 1)."""
    A, v = _wells(), torch.zeros_like(x)
    for gamma, mu in zip(steps, momenta, strict=True):
        z = ((x + mu * v)[..., None, :] - CENTRES) @ A.T
        slope = (torch.exp(-0.5 * z.square().sum(-1, keepdim=True)) * z).sum(-2) @ A
        v = mu * v - gamma * slope
        x = (x + v).clamp(0, 1)
    return x


@exercise("2.5", 'a dict with the keys "steps" and "momenta", five numbers each')
def nine_numbers(answer: Any) -> str:
    steps, momenta = (numbers(part, STEPS, "Each part") for part in parts(answer, "steps", "momenta"))
    need(min(steps) > 0, "A step size must be positive: a negative one climbs.")
    need(min(momenta) >= 0 and max(momenta) < 1, "A momentum lies in [0, 1). Have the two parts changed places?")

    queries, bottoms = _queries(1000, seed=26)
    read = _read(queries, steps, momenta)
    own, start = _squared(read - bottoms).item(), _squared(queries - bottoms).item()
    left = f"It leaves a mean squared distance of {own:.4f}"
    need(own < start, f"{left}; the queries have {start:.4f}. Are the steps too large?")
    gammas = torch.logspace(-2.8, -1.4, 24)[:, None, None]
    one_size = _squared(_read(queries, [gammas] * STEPS, [0.0] * STEPS) - bottoms).min().item()
    need(
        own < one_size,
        f"{left}, and the best single step size {one_size:.4f}. Did the loss still fall where you stopped? Did the "
        "momenta learn as well?",
    )

    searched = _squared(_read(queries, *_best_of_grid(gammas.flatten()[::3])) - bottoms).item()
    on = read
    for _ in range(5):
        on = _read(on, steps, momenta)
    once, again = ((x - bottoms).norm(dim=-1).mean().item() for x in (read, on))
    return (
        f"{left} on fresh queries; the best single step size leaves {one_size:.4f}, a grid over three numbers "
        f"{searched:.4f}. Reading on five times takes the mean distance from {once:.4f} to {again:.4f}: "
        + ("it stays, since these wells are true attractors. " if again < 1.2 * once else "it does not stay. ")
        + "Whether it would if the energy were learned as well, for five steps alone, is open."
    )


def _queries(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy stored points (number, 2), and the bottoms of the wells that they come from."""
    generator = seeded(seed)
    which = torch.randint(0, len(CENTRES), (number,), generator=generator)
    noise = 0.08 * torch.randn(number, 2, generator=generator)
    bottoms = _read(CENTRES, [0.002] * 1000, [0.0] * 1000)
    return (CENTRES[which] + noise).clamp(0, 1), bottoms[which]


def _squared(difference: Tensor) -> Tensor:
    """Mean over the queries of the squared distance, (..., Q, 2) to (...)."""
    return difference.square().sum(-1).mean(-1)


def _best_of_grid(gammas: Tensor) -> tuple[list[Any], list[Any]]:
    """Step sizes and momenta, with one share of (2.8) and one momentum, the best of a grid for queries of its own."""
    queries, bottoms = _queries(200, seed=27)
    grid = torch.cartesian_prod(gammas, torch.linspace(0.4, 1, 7), torch.linspace(0, 0.9, 10))

    def schedule(gamma: Any, share: Any, mu: Any) -> tuple[list[Any], list[Any]]:
        return [gamma * share**k for k in range(STEPS)], [0.0] + [mu] * (STEPS - 1)

    reads = _read(queries, *schedule(*grid[:, :, None, None].unbind(1)))
    return schedule(*grid[_squared(reads - bottoms).argmin()])
