"""The protocol of image metrics: who meets whom, the averages by hand, bounded memory, faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xfavot.errors import DataError
from xfavot.evaluation import images as images_evaluation
from xfavot.evaluation.images import LPIPS, Direction, Metrics, Moments, plan, score, unit_package
from xfavot.report.artifact import plain_rows, require_columns

SIDE, DIMS, OUTPUTS, BATCH = 32, 6, 3, 4
TO_MALE = Direction(source="female", target="male", sources=10, references=9)
TO_FEMALE = Direction(source="male", target="female", sources=7, references=5)


def network(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x, (1, DIMS // 3)).flatten(1)


def extractor(label: str = "a stub", dims: int = DIMS) -> images_evaluation.Extractor:
    return images_evaluation.substitute(label, network, dims=dims, fingerprint="1")


def distance(*, of_bytes: bool = False, over_batches: bool = False) -> LPIPS:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU())
    learnt = [torch.rand(8), torch.rand(4)]
    name = "lpips_stargan_v2" if over_batches else "lpips_alex"
    return LPIPS(name, layers, learnt, unit_package, of_bytes=of_bytes, over_batches=over_batches)


def output(direction: Direction, source: int, reference: int) -> Tensor:
    """(3, H, W), overshooting [-1, 1] here and there, a function of the two numbers."""
    seed = 1000 * source + 10 * reference + len(direction.target)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, SIDE, SIDE, generator=generator) * 0.6
    return x + torch.linspace(-source, reference, SIDE) / 10


def generate(direction: Direction, sources: Tensor, references: Tensor) -> Tensor:
    return torch.stack(
        [
            torch.stack([output(direction, int(s), int(r)) for r in row])
            for s, row in zip(sources, references, strict=True)
        ]
    )


def real(*extractors: images_evaluation.Extractor) -> dict[tuple[str, str], Moments]:
    found = {}
    for seed, domain in enumerate(("male", "female")):
        x = torch.randint(
            0,
            256,
            (40, 3, SIDE, SIDE),
            dtype=torch.uint8,
            generator=torch.Generator().manual_seed(seed),
        )
        for one in extractors:
            found[one.metric, domain] = one.moments([x])
    return found


def run(
    generate: Any = generate,
    directions: Any = (TO_MALE, TO_FEMALE),
    metrics: Metrics | None = None,
    **changes: Any,
) -> list[dict[str, Any]]:
    metrics = metrics or Metrics(extractors=[extractor()], distances=[distance()], missing={})
    known = changes.pop("real", None) or real(*metrics.extractors)
    given = {"system": "ours", "task": "i2i", "dataset": "mini", "seed": 5}
    return score(
        generate,
        directions,
        metrics,
        known,
        **given,
        **{"outputs": OUTPUTS, "batch": BATCH, **changes},
    )


def test_draw_is_the_ancestors() -> None:
    blocks = list(plan(TO_MALE, seed=1, outputs=OUTPUTS, batch=BATCH))
    assert [len(sources) for sources, _ in blocks] == [4, 4, 2]  # the last one kept
    assert sorted(torch.cat([s for s, _ in blocks]).tolist()) == list(range(10))
    assert [tuple(references.shape) for _, references in blocks] == [(4, 3), (4, 3), (2, 3)]
    drawn = [references[:, j].tolist() for _, references in blocks for j in range(OUTPUTS)]
    # nine references make two whole batches of four; then they are shuffled again
    for one, two in pairwise(drawn[::2]):
        assert one != two
    for one, two in zip(drawn[::2], drawn[1::2], strict=False):
        assert len({*one, *two}) == len(one) + len(two)
    assert max(map(max, drawn)) == 8


def test_draw_follows_seed_and_direction() -> None:
    def numbers(direction: Direction, seed: int) -> list[Any]:
        blocks = plan(direction, seed=seed, outputs=OUTPUTS, batch=BATCH)
        return [part.tolist() for block in blocks for part in block]

    other = Direction(source="male", target="female", sources=10, references=9)
    assert numbers(TO_MALE, 1) == numbers(TO_MALE, 1)
    assert numbers(TO_MALE, 1) != numbers(TO_MALE, 2)
    assert numbers(TO_MALE, 1) != numbers(other, 1)


def test_draw_of_the_paper() -> None:
    direction = Direction(source="female", target="male", sources=1000, references=1000)
    blocks = list(plan(direction, seed=0))
    assert [len(sources) for sources, _ in blocks] == [32] * 31 + [8]
    assert sum(references.numel() for _, references in blocks) == 10_000


def by_hand(direction: Direction) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Features of all outputs; LPIPS by batches, of floats and of bytes, from all pairs."""
    features, floats, rounded = [], [], []
    for sources, references in plan(direction, seed=5, outputs=OUTPUTS, batch=BATCH):
        x = generate(direction, sources, references)
        saved = ((x + 1) / 2).clamp(0, 1).mul(255).add(0.5).floor()
        features.append(network((saved / 127.5 - 1).flatten(0, 1)))
        for images, found in ((x, floats), (saved / 127.5 - 1, rounded)):
            pairs = combinations(range(OUTPUTS), 2)
            own = [distance()(images[:, i], images[:, j]) for i, j in pairs]
            found.append(torch.stack(own).mean(0))
    return torch.cat(features), floats, rounded


def test_rows_are_those_by_hand() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    metrics = Metrics(
        extractors=[extractor()],
        distances=[distance(over_batches=True), distance(of_bytes=True)],
        missing={},
    )
    rows = run(metrics=metrics)
    found = {(row["metric"], row["direction"]): row for row in rows}
    known, expected = real(extractor()), {}
    for direction in (TO_MALE, TO_FEMALE):
        features, floats, rounded = by_hand(direction)
        a, b = known["frechet, a stub", direction.target], features.double().numpy()
        own, cov = a.covariance().numpy(), np.cov(b, rowvar=False)
        root = np.trace(linalg.sqrtm(own @ cov)).real
        value = np.square(a.mean.numpy() - b.mean(0)).sum() + np.trace(own + cov) - 2 * root
        expected["frechet, a stub", direction.name] = float(value)
        batches = [float(batch.mean()) for batch in floats]
        expected["lpips_stargan_v2", direction.name] = float(np.mean(batches))
        expected["lpips_alex", direction.name] = float(torch.cat(rounded).mean())
        row = found["lpips_alex", direction.name]
        wide = 1.96 * float(torch.cat(rounded).std()) / math.sqrt(direction.sources)
        assert row["ci_high"] - row["value"] == pytest.approx(wide, rel=1e-4)
        assert row["n"] == direction.sources
        assert found["frechet, a stub", direction.name]["n"] == 3 * direction.sources
        assert found["frechet, a stub", direction.name]["n_real"] == 40
    for (metric, direction_name), value in expected.items():
        assert found[metric, direction_name]["value"] == pytest.approx(value, rel=1e-5)
    for metric in ("frechet, a stub", "lpips_stargan_v2", "lpips_alex"):
        both = [expected[metric, d.name] for d in (TO_MALE, TO_FEMALE)]
        assert found[metric, "mean"]["value"] == pytest.approx(np.mean(both), rel=1e-5)
    batches_differ = abs(
        expected["lpips_stargan_v2", TO_MALE.name] / expected["lpips_alex", TO_MALE.name] - 1
    )
    assert batches_differ > 1e-4  # else the two ways of averaging were not told apart
    assert len(rows) == 9


def test_rows_fit_the_tables() -> None:
    rows = plain_rows("images", run(), "smoke")
    for row in rows:
        require_columns("images", row)
    assert {row["direction"] for row in rows} == {"female to male", "male to female", "mean"}
    assert all(row["definition"] for row in rows)


def test_runs_are_equal_and_other_systems_meet_the_same() -> None:
    seen: list[list[Any]] = [[], []]

    def watched(index: int) -> Any:
        def other(direction: Direction, sources: Tensor, references: Tensor) -> Tensor:
            seen[index].append((direction.name, sources.tolist(), references.tolist()))
            return generate(direction, sources, references) * (0.5 if index else 1)

        return other

    one, two = run(watched(0)), run(watched(1))
    assert seen[0] == seen[1]
    assert run() == one != two


def test_outputs_of_eight_bits() -> None:
    def saved(*given: Any) -> Tensor:
        return generate(*given).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)

    rows, floats = run(saved), run()
    assert [row["value"] for row in rows] == pytest.approx(
        [row["value"] for row in floats], rel=0.05
    )


def test_outputs_that_exist_already() -> None:
    chosen = [[(3 * n + j) % 9 for j in range(OUTPUTS)] for n in range(10)]
    direction = Direction(source="f", target="male", sources=10, references=0, chosen=chosen)
    for sources, references in plan(direction, seed=1, outputs=OUTPUTS, batch=BATCH):
        assert references.tolist() == [chosen[n] for n in sources.tolist()]
    for wrong in ([*chosen[:9], [1, 2]], chosen[:9]):
        direction = Direction(source="f", target="male", sources=10, references=0, chosen=wrong)
        with pytest.raises(DataError, match="another number of references than 3"):
            run(directions=[direction])


def test_nothing_available_makes_no_outputs() -> None:
    def never(*given: Any) -> Tensor:
        raise AssertionError("asked for outputs")

    assert run(never, metrics=Metrics(missing={"fid_pytorch": "no weights"}), real={1: 1}) == []


def test_one_direction_has_no_mean() -> None:
    assert [row["direction"] for row in run(directions=[TO_MALE])] == ["female to male"] * 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x[:, :2], r"expected \(4, 3, 3\) and H, W, one output for each source and ref"),
        (lambda x: x[:-1], "one output for each source"),
        (lambda x: x.mean(2, keepdim=True), "one output for each source"),
        (lambda x: x.to(torch.int32), r"returned torch.int32 .* floats in \[-1, 1\] or uint8"),
        (lambda x: x.add(1).mul(127.5), r"outputs hold .*return uint8 if they are bytes"),
        (lambda x: x.clamp(-1, 1).add(1).div(2), r"seem to lie in \[0, 1\]: return 2 x - 1"),
        (
            lambda x: x.masked_fill(torch.arange(len(x)).view(-1, 1, 1, 1, 1) == 1, torch.nan),
            "3 of 12 outputs hold nan",
        ),
    ],
)
def test_outputs_that_are_none(change: Callable[[Tensor], Tensor], match: str) -> None:
    with pytest.raises(DataError, match=match):
        run(lambda *given: change(generate(*given)))


def test_features_not_finite() -> None:
    def broken(x: Tensor) -> Tensor:
        return network(x).masked_fill(x.mean((1, 2, 3), keepdim=False)[:, None] > 0, torch.nan)

    spoiled = images_evaluation.substitute("a stub", broken, dims=DIMS, fingerprint="1")
    metrics = Metrics(extractors=[spoiled], missing={})
    with pytest.raises(DataError, match=r"features of \d+ of \d+ images are not finite"):
        run(metrics=metrics, real=real(extractor()))


@pytest.mark.parametrize(
    ("direction", "match"),
    [
        (Direction(source="f", target="male", sources=0, references=9), "expected one source"),
        (Direction(source="f", target="male", sources=9, references=3), "a whole batch of 4"),
    ],
)
def test_too_little(direction: Direction, match: str) -> None:
    with pytest.raises(DataError, match=match):
        run(directions=[direction])


@pytest.mark.parametrize(
    "known",
    [
        {("frechet, a stub", "male"): Moments(DIMS)},
        {("other", "male"): Moments(DIMS)},
        {("frechet, a stub", "male"): Moments(2)},
    ],
)
def test_real_statistics_that_are_missing(known: dict[tuple[str, str], Moments]) -> None:
    def never(*given: Any) -> Tensor:
        raise AssertionError("asked for outputs")

    for one in known.values():
        one.add(torch.ones(1, len(one.mean)))
    with pytest.raises(DataError, match=r"statistics of \d real male images with \d features"):
        run(never, real=known, directions=[TO_MALE])


def resident() -> int:
    """Bytes of this process that are in memory."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        pytest.skip("the system does not say how much memory a process takes")


def test_memory_does_not_grow_with_the_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def large(direction: Direction, sources: Tensor, references: Tensor) -> Tensor:
        taken.append(resident())
        return torch.rand(*references.shape, 3, 128, 128).mul_(2).sub_(1)

    def inception(x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.mean(1), (32, 64)).flatten(1)

    stub = images_evaluation.substitute("a stub", inception, dims=2048, fingerprint="1")
    layers = nn.Sequential(nn.Conv2d(3, 8, 8, stride=16), nn.ReLU())
    spread = LPIPS("lpips_alex", layers, [torch.rand(8)], unit_package)
    metrics = Metrics(extractors=[stub], distances=[spread], missing={})
    monkeypatch.setattr("xfavot.evaluation.images.frechet_distance", lambda a, b: 0.0)
    known = Moments(2048)
    known.count = 2
    direction = Direction(source="female", target="male", sources=5 * 32, references=64)
    run(
        large,
        directions=[direction],
        metrics=metrics,
        outputs=10,
        batch=32,
        real={(stub.metric, "male"): known},
    )
    assert len(taken) == 5
    block = 32 * 10 * 3 * 128 * 128 * 4
    assert taken[-1] - taken[2] < block  # kept images would be two blocks
    assert taken[-1] - taken[0] < 2**30
