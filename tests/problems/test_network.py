"""The genes of a network, and the fitness of what they decode to."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from networks import mixed_paths, quantized, with_paths
from support import on_devices

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core import Proposal, blocks
from qevo.core.blocks import Place
from qevo.errors import QevoError
from qevo.integer import loss as losses
from qevo.nets.autoencoder import Autoencoder
from qevo.nets.lenet import LeNet5
from qevo.nets.mlp import LeNet300
from qevo.nets.network import QuantizedNetwork
from qevo.nets.resnet import ResNet
from qevo.problems import NetworkProblem, network_space
from qevo.run.auditing import audit_generation

KINDS = ("weights", "multipliers", "biases")
SUBSETS = [kinds for n in (1, 2, 3) for kinds in itertools.combinations(KINDS, n)]
IMAGES, LABELS = tiny.blobs(75)
LARGE = np.kron(IMAGES, np.ones((1, 2, 2, 1), np.uint8))  # for kernels of 5 x 5
ROWS = 23  # of a batch: no length divides it
VALIDATION, VALIDATION_LABELS = tiny.blobs(53, seed=1)


@pytest.fixture(scope="module")
def network() -> QuantizedNetwork:
    """Dense layers of mixed bits."""
    bits = {"*": "ternary", "dense_1": 4, "logits": 8}
    return quantized(LeNet300(hidden=(12, 8), classes=tiny.CLASSES), IMAGES, bits=bits)


@pytest.fixture(scope="module")
def residual() -> QuantizedNetwork:
    """Convolutions in nested modules, residual sums and an average pool."""
    module = ResNet(widths=(4, 6), classes=tiny.CLASSES)
    return quantized(module, IMAGES, bits=3, activation_bits=4)


@pytest.fixture(scope="module")
def lenet() -> QuantizedNetwork:
    """Convolutions and max pools, then dense layers of which one is searched by channels."""
    module = LeNet5(channels=(3, 4), hidden=(9,), classes=tiny.CLASSES)
    return quantized(module, LARGE, bits=8)


@pytest.fixture(scope="module")
def autoencoder() -> QuantizedNetwork:
    """Images in, images out."""
    return quantized(Autoencoder(widths=(3, 4), code=2), LARGE, bits=3)


def problem_of(network: QuantizedNetwork, **options: Any) -> NetworkProblem:
    settings = {"batch_size": 16, **options}
    return NetworkProblem.of(network, IMAGES, LABELS, VALIDATION, VALIDATION_LABELS, **settings)


def arrays(network: QuantizedNetwork) -> Any:
    return dict(network.weights), {k: dict(v) for k, v in network.constants.items()}


def same(left: Any, right: Any) -> bool:
    equal = jax.tree.map(lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, left, right)
    return jax.tree.all(equal)


def float_losses(logits: np.ndarray, targets: np.ndarray, fraction_bits: int) -> np.ndarray:
    """Cross-entropy per image in nats, in float64; ``targets`` are shares ``[n, C]``."""
    real = logits / 2.0**fraction_bits
    real -= real.max(axis=1, keepdims=True)
    log_shares = real - np.log(np.exp(real).sum(axis=1, keepdims=True))
    return -(targets * log_shares).sum(axis=1)


class TestSpace:
    @pytest.mark.parametrize("genes", SUBSETS, ids="+".join)
    @pytest.mark.parametrize("which", ["network", "residual"])
    def test_starts_at_the_network_and_changes_only_what_it_may(
        self, genes: Any, which: str, request: pytest.FixtureRequest
    ) -> None:
        network: QuantizedNetwork = request.getfixturevalue(which)
        problem = problem_of(network, genes=genes)
        start = problem.space.decode(problem.space.start)
        assert set(start) == set(genes)
        assert same(arrays(problem.network(network, start)), arrays(network))

        edited = problem.network(network, problem.space.decode(problem.space.high))
        for name in network.layers:
            changed = {
                "weights": not np.array_equal(edited.weights[name], network.weights[name]),
                **{
                    f"{key}s" if key == "multiplier" else "biases": not np.array_equal(
                        edited.constants[name][key], network.constants[name][key]
                    )
                    for key in ("multiplier", "bias")
                },
            }
            assert changed == {kind: kind in genes for kind in KINDS}
        for name in set(network.constants) - set(network.layers):
            assert same(dict(edited.constants[name]), dict(network.constants[name]))

    @pytest.mark.parametrize("radius", [1, 2, 127])
    def test_bounds_keep_every_proved_limit(self, network: QuantizedNetwork, radius: int) -> None:
        space = network_space(network, genes=KINDS, radius=radius)
        low, high = space.decode(space.low), space.decode(space.high)
        for name, facts in network.layers.items():
            start = np.asarray(network.weights[name], np.int32)
            np.testing.assert_array_equal(
                low["weights"][name], np.maximum(start - radius, facts.weight_low)
            )
            np.testing.assert_array_equal(
                high["weights"][name], np.minimum(start + radius, facts.weight_high)
            )
            assert low["multipliers"][name].min() >= 1
            assert high["multipliers"][name].max() <= facts.multiplier_limit
            assert low["biases"][name].min() >= -facts.bias_limit
            assert high["biases"][name].max() <= facts.bias_limit

    @pytest.mark.parametrize("end", ["low", "high"])
    @pytest.mark.parametrize(
        ("genes", "constant", "limit"),
        [("multipliers", "multiplier", "multiplier_limit"), ("biases", "bias", "bias_limit")],
    )
    def test_a_constant_at_its_limit_can_only_move_back(
        self, network: QuantizedNetwork, genes: Any, constant: str, limit: str, end: str
    ) -> None:
        constants = dict(network.constants)
        for name, facts in network.layers.items():
            most = getattr(facts, limit)
            least = 1 if constant == "multiplier" else -most
            edge = jnp.full_like(constants[name][constant], least if end == "low" else most)
            constants[name] = {**constants[name], constant: edge}
        edged = dataclasses.replace(network, constants=constants)
        space = network_space(edged, genes=(genes,))
        outward, inward = (space.low, space.high)[:: 1 if end == "low" else -1]
        assert not np.any(outward)
        assert np.all(np.asarray(inward) != 0)

    def test_one_step_is_a_64th_of_a_multiplier_and_about_a_level_of_a_bias(
        self, network: QuantizedNetwork
    ) -> None:
        space = network_space(network, genes=("multipliers", "biases"))
        up = space.decode(jnp.ones_like(space.start))
        for name in network.layers:
            constants = {k: np.asarray(v, np.int64) for k, v in network.constants[name].items()}
            multiplier = constants["multiplier"]
            np.testing.assert_array_equal(
                up["multipliers"][name] - multiplier, np.maximum(multiplier // 64, 1)
            )
            moved = np.asarray(up["biases"][name]) - constants["bias"]
            if name == "logits":
                np.testing.assert_array_equal(moved * 32, 1 << network.fraction_bits)
            else:
                levels = moved * multiplier / 2.0 ** constants["shift"]
                assert np.all((levels > 0.5) & (levels <= 1))

    def test_some_layers_alone_have_genes(self, residual: QuantizedNetwork) -> None:
        chosen = ("logits", "block_1_0/conv_0")
        space = network_space(residual, genes=("weights", "biases"), layers=chosen)
        names = {leaf.name for leaf in space.layout}
        assert names == {f"{kind}/{name}" for kind in ("weights", "biases") for name in chosen}
        assert space.blocks
        with pytest.raises(QevoError, match=r"layers must be some of stem, .*got .*nowhere"):
            network_space(residual, genes=("weights",), layers=("nowhere", "logits"))
        with pytest.raises(QevoError, match="layers must be some of"):
            network_space(residual, genes=("weights",), layers=())

    @pytest.mark.parametrize("genes", [(), ("weight",), "weights"])
    def test_unknown_genes(self, network: QuantizedNetwork, genes: Any) -> None:
        with pytest.raises(QevoError, match="weights, multipliers, biases"):
            network_space(network, genes=genes)

    @pytest.mark.parametrize("radius", [0, -1, 128])
    def test_radius_out_of_range(self, network: QuantizedNetwork, radius: int) -> None:
        with pytest.raises(QevoError, match=f"1 to 127, got {radius}"):
            network_space(network, genes=("weights",), radius=radius)

    @pytest.mark.parametrize("parts", [{"blocks": 0}, {"channels": 0}])
    def test_parts_out_of_range(self, network: QuantizedNetwork, parts: dict[str, int]) -> None:
        with pytest.raises(QevoError, match="blocks and channels must be at least 1"):
            network_space(network, genes=("weights",), **parts)


class TestFitness:
    def targets(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Search targets, validation targets, and the latter as shares."""
        if kind == "labels":
            return LABELS, VALIDATION_LABELS, np.eye(tiny.CLASSES)[VALIDATION_LABELS]
        draw = np.random.RandomState(3)
        logits = draw.randint(-4096, 4096, (len(LABELS) + len(VALIDATION), tiny.CLASSES))
        soft = np.asarray(losses.softmax(jnp.asarray(logits, jnp.int32), fraction_bits=10))
        ours, held = np.split(soft, [len(LABELS)])
        return ours, held, held / losses.TARGET_TOTAL

    @pytest.mark.parametrize("kind", ["labels", "soft"])
    @pytest.mark.parametrize("batch", [16, 53, 64])  # with a remainder, exactly one, none whole
    def test_validation_is_the_loss_over_every_image(
        self, network: QuantizedNetwork, kind: str, batch: int
    ) -> None:
        ours, held, shares = self.targets(kind)
        problem = NetworkProblem.of(
            network,
            IMAGES,
            ours,
            VALIDATION,
            VALIDATION_LABELS,
            validation_targets=held,
            batch_size=batch,
        )
        solution = problem.space.decode(problem.space.start)
        loss, metrics = jax.jit(problem.validation)(solution)
        logits = network(VALIDATION)
        exact = float_losses(logits, shares, network.fraction_bits)
        assert abs(int(loss) / losses.UNIT - exact.sum()) <= 2 * len(exact) / losses.UNIT
        errors = np.sum(np.argmax(logits, axis=1) != VALIDATION_LABELS)
        assert int(metrics["validation_errors"]) == errors
        per_image = problem.loss_per_image(int(loss), len(exact))
        assert per_image == pytest.approx(exact.mean(), abs=2 / losses.UNIT)

    @pytest.mark.parametrize("kind", ["labels", "soft"])
    def test_counts_errors(self, network: QuantizedNetwork, kind: str) -> None:
        ours, held, shares = self.targets(kind)
        problem = NetworkProblem.of(
            network,
            IMAGES,
            ours,
            VALIDATION,
            VALIDATION_LABELS,
            validation_targets=held,
            batch_size=20,
            loss="errors",
        )
        loss, _ = problem.validation(problem.space.decode(problem.space.start))
        wrong = np.argmax(network(VALIDATION), axis=1) != np.argmax(shares, axis=1)
        assert int(loss) == wrong.sum()
        assert problem.loss_per_image(int(loss), len(wrong)) == wrong.mean()

    def test_a_batch_pairs_images_with_their_targets(self, network: QuantizedNetwork) -> None:
        rows = np.arange(len(LABELS))
        marked = np.zeros_like(IMAGES)
        marked[:, 0, 0, 0] = 2 * rows  # the image rule halves pixels
        problem = dataclasses.replace(
            problem_of(network),
            images=jax.jit(network.prepare)(marked),
            targets=jnp.asarray(rows),
            batch_size=500,
        )
        images, targets = problem.batch(jax.random.key(0))
        assert images.dtype == jnp.int8
        np.testing.assert_array_equal(images[:, 0, 0, 0], targets)
        assert set(np.asarray(targets).tolist()) == set(rows.tolist())

    def test_a_batch_of_all_images_holds_each_once(self, network: QuantizedNetwork) -> None:
        problem = dataclasses.replace(
            problem_of(network, batch_size=len(LABELS)), targets=jnp.arange(len(LABELS))
        )
        targets = np.asarray(problem.batch(jax.random.key(0))[1])
        np.testing.assert_array_equal(np.sort(targets), np.arange(len(LABELS)))

    @pytest.mark.parametrize("which", ["network", "residual"])
    def test_scores_are_those_of_the_networks_one_by_one(
        self, which: str, request: pytest.FixtureRequest
    ) -> None:
        network: QuantizedNetwork = request.getfixturevalue(which)
        problem = problem_of(network, batch_size=len(LABELS))
        space, draw = problem.space, np.random.RandomState(5)
        population, group = 6, 40
        positions = np.stack([draw.choice(space.size, group, replace=False) for _ in range(2)])
        rows = np.repeat(np.arange(2), population // 2)
        low, high = np.asarray(space.low, np.int32), np.asarray(space.high, np.int32)
        values = draw.randint(low[positions[rows]], high[positions[rows]] + 1).astype(np.int8)
        batch = problem.images, problem.targets
        share = Proposal(jnp.asarray(positions, jnp.int32), jnp.asarray(values)).share

        expected = []
        for row, value in zip(rows, values, strict=True):
            genes = np.array(space.start)
            genes[positions[row]] = value
            edited = problem.network(network, space.decode(jnp.asarray(genes)))
            expected.append(
                losses.cross_entropy(
                    jnp.asarray(edited(IMAGES)),
                    jnp.asarray(LABELS),
                    fraction_bits=network.fraction_bits,
                ).sum()
            )
        assert len(set(map(int, expected))) > 1
        fast = problem_of(network, batch_size=len(LABELS), arithmetic="fast")
        fast = with_paths(fast, mixed_paths(network))
        for candidate, chunk in ((problem, 1), (problem, None), (fast, 4)):
            scores = jax.jit(candidate.scores, static_argnames="chunk")(
                space.start, share, batch, chunk=chunk
            )
            np.testing.assert_array_equal(scores, expected)

    def test_describes_what_decides_the_result(self, network: QuantizedNetwork) -> None:
        before = problem_of(network).describe()
        assert before == problem_of(network, arithmetic="fast", candidate_chunk=7).describe()
        for change in (
            {"genes": ("biases",)},
            {"batch_size": 8},
            {"loss": "errors"},
            {"radius": 2},
        ):
            assert problem_of(network, **change).describe() != before


class Candidates:
    """Proposals at every place of a problem's blocks, and their fitness scored without blocks."""

    population, subgroups, group = 8, 2, 20

    def __init__(self, problem: NetworkProblem):
        self.space, draw = problem.space, np.random.RandomState(6)
        space = problem.space
        self.context = self._near(draw, np.asarray(space.start, np.int32), slice(None), 2)
        self.batch = problem.images[:ROWS], problem.targets[:ROWS]
        self.proposals = []
        for number, block in enumerate(space.blocks):
            last = 0
            if block.channels is not None:
                last = space.layout[block.leaves[0]].shape[-1] - block.channels
            for channel in sorted({0, last // 2, last}):
                place = Place(jnp.int32(number), jnp.int32(channel))
                self.proposals.append(self._proposal(draw, place, blocks.size(space, block)))
        score = functools.partial(problem.scores, chunk=None)
        whole = jax.jit(score)
        self.expected = [
            np.asarray(whole(self.context, Proposal(*proposal[:2]).share, self.batch))
            for proposal in self.proposals
        ]

    def _proposal(self, draw: np.random.RandomState, place: Place, size: int) -> Proposal:
        """Half of the genes of a small block, and padding."""
        many = min(self.group, size // 2)
        within = np.full((self.subgroups, self.group), size)
        for row in within:
            row[draw.permutation(self.group)[:many]] = draw.permutation(size)[:many]
        block, places = self.space.blocks[int(place.block)], jnp.asarray(within, jnp.int32)
        positions = blocks.positions_at(self.space, block, place.channel, places)
        drawn = np.repeat(positions, self.population // self.subgroups, axis=0)
        here = np.append(np.asarray(self.context, np.int32), 0)[drawn]
        values = self._near(draw, here, np.minimum(drawn, self.space.size - 1), 30)
        return Proposal(positions, values, place, places)

    def _near(self, draw: np.random.RandomState, genes: Any, where: Any, steps: int) -> jax.Array:
        """Genes a few steps away, within the bounds; steps of 30 change a weight's sign."""
        moved = genes + draw.randint(-steps, steps + 1, np.shape(genes))
        low, high = np.asarray(self.space.low)[where], np.asarray(self.space.high)[where]
        return jnp.asarray(np.clip(moved, low, high), jnp.int8)


@pytest.fixture(scope="module")
def scored() -> dict[str, Candidates]:
    """The candidates of each network, once they are needed."""
    return {}


class TestBlocks:
    @pytest.mark.parametrize(
        ("which", "arithmetic", "batch_chunk", "candidate_chunk"),
        [
            ("network", "fast", 1, 1),
            ("network", "int", 7, 3),
            ("network", "fast", ROWS, None),
            ("lenet", "int", 1, 3),
            ("lenet", "fast", 7, None),
            ("lenet", "int", ROWS, 1),
            ("residual", "int", 1, None),
            ("residual", "fast", 7, 1),
            ("residual", "fast", ROWS, 3),
            ("autoencoder", "int", 7, 1),
            ("autoencoder", "fast", ROWS, None),
        ],
    )
    def test_scores_are_those_without_blocks(
        self,
        which: str,
        arithmetic: Any,
        batch_chunk: int,
        candidate_chunk: int | None,
        scored: dict[str, Candidates],
        request: pytest.FixtureRequest,
    ) -> None:
        network: QuantizedNetwork = request.getfixturevalue(which)
        images = IMAGES if which in ("network", "residual") else LARGE
        labels = LABELS
        if which == "autoencoder":
            labels = images

        def problem_of(**options: Any) -> NetworkProblem:
            parts = images, labels, images, labels
            if which == "autoencoder":
                options["loss"] = "squared_error"
            return NetworkProblem.of(network, *parts, blocks=3, channels=4, radius=127, **options)

        if which not in scored:
            scored[which] = Candidates(problem_of())
        candidates = scored[which]
        problem = problem_of(arithmetic=arithmetic, batch_chunk=batch_chunk)
        if arithmetic == "fast":
            problem = with_paths(problem, mixed_paths(network))
        score = functools.partial(problem.scores, chunk=candidate_chunk)
        run = jax.jit(score)
        for proposal, expected in zip(candidates.proposals, candidates.expected, strict=True):
            scores = run(candidates.context, proposal.share, candidates.batch)
            assert scores.dtype == jnp.int32
            np.testing.assert_array_equal(scores, expected, err_msg=str(proposal.place))
            assert len(set(expected.tolist())) > 1

    def test_blocks_are_runs_of_layers(
        self, network: QuantizedNetwork, residual: QuantizedNetwork, lenet: QuantizedNetwork
    ) -> None:
        def runs(
            network: QuantizedNetwork, kinds: Any = KINDS, **options: Any
        ) -> list[tuple[list[str], int | None]]:
            space = network_space(network, genes=kinds, **options)
            found = []
            for block in space.blocks:
                names = [space.layout[index].name.split("/", 1) for index in block.leaves]
                layers = [name for name in network.layers if [kinds[0], name] in names]
                assert sorted(names) == sorted([k, name] for k in kinds for name in layers)
                found.append((layers, block.channels))
            assert [name for names, _ in found for name in names] == list(network.layers)
            return found

        assert runs(network, channels=4) == [
            (["dense_0"], 4),
            (["dense_1"], 4),
            (["logits"], None),
        ]
        assert [channels for _, channels in runs(network, channels=5)] == [5, None]
        assert runs(network, blocks=1) == [(list(network.layers), None)]
        assert runs(lenet, channels=4)[:2] == [(["conv_0"], None), (["conv_1"], None)]
        few, many = (runs(residual, blocks=count) for count in (2, 100))
        assert 2 <= len(few) <= 3
        assert len(many) == len(residual.layers)
        assert runs(residual, ("biases",), blocks=1) == [(list(residual.layers), None)]

    def test_a_search_is_the_same_on_any_devices_in_any_pieces(
        self, tmp_path: pathlib.Path
    ) -> None:
        """Devices, scan lengths, chunks, arithmetics and an interruption; in a process apart."""
        code = """
import json, pathlib, sys
from networks import block_search
from support import state

folder = pathlib.Path(sys.argv[1])
one = {"devices": 1, "scan_length": 4, "candidate_chunk": 1}
paths = {"dense_0": "float32", "logits": "float32"}
eight = {"paths": paths, "devices": 8, "batch_devices": 2, "scan_length": 3, "candidate_chunk": 2}
alone = block_search(folder / "alone", **one)
assert alone.metrics[-1]["changed"] > 5
together = block_search(folder / "together", **eight)
first = block_search(folder / "again", max_seconds=0.0, **eight)
assert first.stopped == "time" and first.generations == 3
again = block_search(folder / "again", resume=True, **one)
runs = {"alone": alone, "together": together, "again": again}
print(json.dumps({name: state(run, folder / name) for name, run in runs.items()}))
"""
        found = json.loads(on_devices(8, code, tmp_path))
        assert found["together"] == found["alone"]
        assert found["again"] == found["alone"]


class TestAudit:
    @pytest.mark.parametrize(
        ("which", "grouping"), [("network", "entropy"), ("network", "block"), ("residual", "block")]
    )
    def test_a_generation_holds_no_float(
        self, which: str, grouping: Any, request: pytest.FixtureRequest
    ) -> None:
        network: QuantizedNetwork = request.getfixturevalue(which)
        config = CoevolutionConfig(population=4, group=16, grouping=grouping)
        reports = {}
        for arithmetic in ("int", "fast"):
            problem = problem_of(network, arithmetic=arithmetic, channels=4)
            if arithmetic == "fast":
                problem = with_paths(problem, mixed_paths(network))
            algorithm = Coevolution(problem.space, config)
            reports[arithmetic] = audit_generation(algorithm, problem)
        assert reports["int"].integer_only, str(reports["int"])
        assert reports["fast"].ok, str(reports["fast"])
        assert reports["fast"].exact_products


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": IMAGES[:, :7]}, r"search images must be uint8 \[n, 8, 8, 1\]"),
            ({"images": IMAGES.astype(np.float32)}, "search images must be uint8 .* float32"),
            ({"images": IMAGES[:0], "targets": LABELS[:0]}, "search images"),
            ({"validation_images": VALIDATION[..., 0]}, "validation images must be uint8"),
            ({"targets": LABELS[:-1]}, r"targets must be integers \[75\] or \[75, 3\]"),
            ({"targets": LABELS + 1}, r"targets are 1\.\.3, the network's classes 0\.\.2"),
            ({"targets": LABELS - 1}, r"targets are -1\.\.1"),
            ({"targets": LABELS.astype(np.float32)}, "targets must be integers .* float32"),
            ({"targets": np.zeros((75, 4), np.int32)}, r"got int32 \[75, 4\]"),
            ({"targets": np.full((75, 3), 1365)}, "sum to 4096"),
            ({"targets": np.tile([5000, -904, 0], (75, 1))}, "0 or more"),
            ({"validation_labels": VALIDATION_LABELS + 9}, r"validation_targets are 9\.\.11"),
            ({"validation_labels": np.zeros((53, 3), np.int32)}, "sum to 4096|validation_labels"),
            ({"validation_targets": VALIDATION_LABELS[:5]}, r"validation_targets .* int32 \[5\]"),
            ({"batch_size": 0}, "batch_size must be 1 to 65535, got 0"),
            ({"batch_size": 1 << 16}, "batch_size must be 1 to 65535, got 65536"),
            ({"candidate_chunk": 0}, "candidate_chunk must be at least 1"),
            ({"batch_chunk": -1}, "batch_chunk must be at least 1"),
            ({"loss": "accuracy"}, "loss is one of cross_entropy, errors"),
            ({"arithmetic": "float"}, "arithmetic one of int, fast"),
        ],
    )
    def test_is_refused(self, network: QuantizedNetwork, change: Any, message: str) -> None:
        arguments = {
            "images": IMAGES,
            "targets": LABELS,
            "validation_images": VALIDATION,
            "validation_labels": VALIDATION_LABELS,
        }
        with pytest.raises(QevoError, match=message):
            NetworkProblem.of(network, **(arguments | change))

    def test_more_validation_images_than_a_sum_can_hold(self, network: QuantizedNetwork) -> None:
        many = np.zeros((1 << 16, *tiny.SHAPE), np.uint8)
        with pytest.raises(QevoError, match="65536 validation images"):
            NetworkProblem.of(network, IMAGES, LABELS, many, np.zeros(1 << 16, np.int32))
