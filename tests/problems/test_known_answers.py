"""Max-cut, QUBO, knapsack, NK landscapes and traps: known answers, generators and files."""

import gzip
import hashlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.core.problem import Problem
from qevo.errors import QevoError
from qevo.problems import NK, QUBO, Coloring, Knapsack, MaxCut, Trap, knapsack, read_problem
from qevo.problems.maxcut import BEST_KNOWN, SIZES
from qevo.problems.rudy import gb_flip, gb_uniform


def every_fitness(problem: Problem) -> np.ndarray:
    size = problem.space.size
    every = (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(np.int8)
    return np.asarray(jax.jit(jax.vmap(lambda x: problem.fitness(x, ())))(every))


def test_gb_flip_passes_its_own_test() -> None:
    """The two numbers of Knuth's test_flip."""
    draws = gb_flip(-314159)
    assert next(draws) == 119318998
    for _ in range(133):
        next(draws)
    assert gb_uniform(draws, 0x55555555) == 748103812


@pytest.mark.parametrize(
    ("name", "digest"),  # of the edges in the files of the G-set
    [
        ("G1", "6febe489e7acc49793ad6b32e8f1cc1f2d9697e8bafc8503a54328282e3de4f7"),
        ("G3", "9a52a70da9959f3e8a71d4250ac31a6c61361d6664cb3f68e5b99a21d03278c0"),
        ("G4", "b6f260c354c8a5ae68d47d0fb88730085bd6bf0f197bc51da9224198bf6019e6"),
    ],
)
def test_the_first_graphs_of_the_g_set(name: str, digest: str) -> None:
    graph = MaxCut.rudy(name)
    edges = np.stack([graph.first, graph.second, graph.weight], axis=1).astype("<i4")
    assert edges.shape == (19176, 3)
    assert hashlib.sha256(edges.tobytes()).hexdigest() == digest
    assert graph.best_known == BEST_KNOWN[name]


def test_published_cuts() -> None:
    assert [BEST_KNOWN[f"G{i}"] for i in (1, 2, 3, 4)] == [11624, 11620, 11622, 11646]
    assert (BEST_KNOWN["G21"], BEST_KNOWN["G43"], BEST_KNOWN["G54"]) == (931, 6660, 3852)
    with pytest.raises(QevoError, match="'G7' is not regenerated here, only G1, "):
        MaxCut.rudy("G7")


def test_a_cut_and_its_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "G14.txt"
    path.write_text("# a square with a diagonal\n4 5\n1 2 1\n2 3 1\n3 4\n4 1 1\n\n1 3 -2\n")
    graph = MaxCut.read(path)
    assert graph.best_known is None  # G14 is another graph
    assert int(graph.cut(jnp.asarray([0, 1, 0, 1], jnp.int8))) == 4
    assert int(graph.fitness(jnp.asarray([0, 0, 1, 1], jnp.int8), ())) == 0
    assert every_fitness(graph).min() == -4
    merged = MaxCut.of(2, [0, 1], [1, 0], [3, 4])
    assert merged.weight.tolist() == [7]


def test_a_file_of_the_g_set_has_its_best_known_cut(tmp_path: pathlib.Path) -> None:
    graph = MaxCut.rudy("G2")
    edges = np.stack([graph.first, graph.second], axis=1) + 1
    text = "800 19176\n" + "".join(f"{first} {second} 1\n" for first, second in edges.tolist())
    for name, known in (("G2", 11620), ("g2.mc", 11620), ("G2.txt", 11620), ("mine.mc", None)):
        (tmp_path / name).write_text(text)
        assert MaxCut.read(tmp_path / name).best_known == known
    (tmp_path / "G11.mc").write_text(text)
    assert MaxCut.read(tmp_path / "G11.mc").best_known is None  # a torus of 1,600 edges
    assert [SIZES[f"G{i}"] for i in (10, 13, 14, 21, 43, 50, 54)] == [
        *((800, 19176), (800, 1600), (800, 4694), (800, 4667)),
        *((1000, 9990), (3000, 6000), (1000, 5916)),
    ]


def test_the_value_of_a_qubo() -> None:
    draw = np.random.RandomState(0)
    first, second = draw.randint(0, 9, (2, 60))
    weight = draw.randint(-9, 10, 60)
    matrix = np.zeros((9, 9), int)
    np.add.at(matrix, (first, second), weight)
    every = np.arange(512)[:, None] >> np.arange(9) & 1
    values = np.einsum("bi,ij,bj->b", every, matrix, every)
    np.testing.assert_array_equal(every_fitness(QUBO.of(9, first, second, weight)), values)
    most = QUBO.of(9, first, second, weight, maximise=True)
    np.testing.assert_array_equal(every_fitness(most), -values)


def test_the_dialects_of_a_qubo(tmp_path: pathlib.Path) -> None:
    plain, qbsolv = tmp_path / "a.sparse", tmp_path / "b.qubo.GZ"
    plain.write_text("3 3\n1 1 5\n1 2 -7\n3 2 4\n")
    with gzip.open(qbsolv, "wt") as file:
        file.write("c as above\np qubo 0 3 1 2\n0 0 5\n0 1 -7\n1 2 4\n")
    found = every_fitness(QUBO.read(plain))
    assert found[[1, 2, 3, 6, 7]].tolist() == [5, 0, -2, 4, 2]
    np.testing.assert_array_equal(every_fitness(read_problem(qbsolv)), found)
    twice = read_problem(plain, maximise=True, twice=True)
    assert every_fitness(twice)[[1, 3, 6]].tolist() == [-5, 9, -8]


@pytest.mark.parametrize("kind", ["uncorrelated", "weakly", "strongly"])
def test_the_optimum_of_a_knapsack(kind: str) -> None:
    for seed in range(3):
        problem = Knapsack.random(jax.random.key(seed), 13, kind=kind, largest=60)  # pyright: ignore
        found = every_fitness(problem)
        every = np.arange(2**13)[:, None] >> np.arange(13) & 1
        light = every @ np.asarray(problem.weights) <= int(problem.capacity)
        np.testing.assert_array_equal(found[light], -(every @ np.asarray(problem.values))[light])
        assert problem.optimum == found[light].min()
        assert problem.optimum < found[~light].min()
        start = int(problem.fitness(problem.space.start, ()))
        assert problem.optimum <= start < 0.7 * problem.optimum


def test_overweight_costs_more_the_more_it_is() -> None:
    problem = Knapsack.of([10, 1, 1, 1], [7, 5, 5, 5], 7)
    assert problem.optimum == -10
    packings = jnp.asarray([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], jnp.int8)
    found = [int(problem.fitness(one, ())) for one in packings]
    assert found == sorted(found)
    assert found[0] < found[1]
    assert Knapsack.of([3, 4], [1, 1], 5).optimum == -7  # everything fits


def test_a_huge_capacity_is_not_solved_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(knapsack, "best_value", lambda v, w, capacity: asked.append(capacity) or 0)
    weights = [2**27, 2**27, 2**27]
    assert Knapsack.of([3, 4, 5], weights, 2**28).optimum is None
    assert Knapsack.of([3, 4, 5], weights, 2**28, solve=True).optimum == 0
    assert Knapsack.of([3, 4, 5], [7, 8, 9], 2**28).optimum == 0  # no more than the weights is used
    assert asked == [2**28, 2**28]


def test_a_knapsack_from_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "small.kp"
    path.write_text("3 10\n60 5\n\n50 6\n70 5\n1 0 1\n")
    problem = read_problem(path)
    assert problem.optimum == -130
    assert Knapsack.read(path, solve=False).optimum is None


@pytest.mark.parametrize("neighbours", [0, 1, 2, 4])
def test_the_optimum_of_a_landscape(neighbours: int) -> None:
    problem = NK.random(jax.random.key(neighbours), 11, neighbours, bits=6)
    assert problem.optimum == every_fitness(problem).min()
    bits = np.random.RandomState(0).randint(0, 2, 11).astype(np.int8)
    ring = [bits.take(range(i, i + neighbours + 1), mode="wrap") for i in range(11)]
    codes = [int(sum(int(b) << j for j, b in enumerate(window))) for window in ring]
    value = sum(int(problem.tables[i, code]) for i, code in enumerate(codes))
    assert int(problem.fitness(jnp.asarray(bits), ())) == -value


def test_a_damaged_gzip_file_is_named(tmp_path: pathlib.Path) -> None:
    path, packed = tmp_path / "a.mc.gz", bytearray(gzip.compress(b"3 1\n1 2 1\n"))
    packed[10] ^= 0xFF  # the header is whole, the stream is not
    path.write_bytes(packed)
    with pytest.raises(QevoError, match=r"a\.mc\.gz: cannot be read: Error -3"):
        read_problem(path)


def test_traps() -> None:
    found = every_fitness(Trap.of(10))
    assert found[[0, 0b11111, 0b1111111111, 0b1111]].tolist() == [2, 1, 0, 6]
    assert found.min() == Trap.of(10).optimum


MALFORMED = {
    "empty.mc": ("", "expected the numbers of vertices and of edges, got no line"),
    "header.mc": ("3\n", "line 1: expected the numbers of vertices and of edges, got '3'"),
    "word.mc": ("3 1\n1 b 1\n", "line 2: expected an edge: two vertices and a weight, got '1 b 1'"),
    "loop.mc": ("3 1\n2 2 1\n", "line 2: an edge joins two different vertices from 1 to 3"),
    "outside.mc": ("3 1\n\n0 2 1\n", "line 3: an edge joins two different vertices from 1 to 3"),
    "few.mc": ("3 2\n1 2 1\n", "the header promises 2 edges, the file holds 1"),
    "many.mc": ("3 1\n1 2 1\n2 3 1\n", "line 3: the header promises 1 edges, this is one more"),
    "heavy.mc": ("2 1\n1 2 2000000000\n", ": the weights' absolute .* may leave int32"),
    "outside.qubo": ("2 1\n1 3 1\n", r"line 2: variables count from 1 to 2, got \[1, 3\]"),
    "p.qubo": ("p qubo 0 2\n", "line 1: expected 'p qubo 0 variables nodes couplers'"),
    "few.qubo": ("2 2\n1 1 1\n", "the header promises 2 entries, the file holds 1"),
    "word.kp": ("1 9\n3.5 2\n", "line 2: expected an item: its value and its weight, got '3.5 2'"),
    "weight.kp": ("1 9\n3 0\n", "line 2: a value is at least 0 and a weight at least 1"),
    "few.kp": ("2 9\n3 1\n", "the header promises 2 items, the file holds 1"),
    "late.col": ("e 1 2\n", "line 1: expected 'p edge', once, and then 'e' lines, got 'e'"),
    "outside.col": ("p edge 2 1\ne 1 3\n", "line 2: an edge joins two different vertices"),
    "packed.col.gz": ("no gzip", "cannot be read"),
    "unknown.dat": ("1 2\n", "the name does not say what kind of problem it is"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_name_the_line(tmp_path: pathlib.Path, name: str) -> None:
    text, message = MALFORMED[name]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(QevoError, match=f"^{re.escape(str(path))}.*{message}"):
        read_problem(path, colors=3)
    with pytest.raises(QevoError, match=r"nowhere.*cannot be read"):
        read_problem(tmp_path / "nowhere.mc")


def test_a_colouring_from_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "triangle.col"
    path.write_text("c a triangle\np edge 3 6\ne 1 2\ne 2 1\ne 2 3\ne 1 3\n")
    problem = read_problem(path, colors=3)
    assert isinstance(problem, Coloring)
    for colors, conflicts in (([0, 1, 2], 0), ([0, 0, 2], 1), ([1, 1, 1], 3)):
        assert int(problem.fitness(jnp.asarray(colors, jnp.int8), ())) == conflicts
    with pytest.raises(QevoError, match="a colouring needs the number of colours"):
        read_problem(path)


def test_numbers_that_leave_int32_are_refused() -> None:
    with pytest.raises(QevoError, match="divide the values or the weights"):
        Knapsack.of([2**30, 2**30], [1, 2], 2)
    with pytest.raises(QevoError, match="sum to more than int32"):
        NK.of(np.full((40, 4), 2**26))
    with pytest.raises(QevoError, match=r"tables have the shape \[N, 2\*\*\(K \+ 1\)\]"):
        NK.of(np.zeros((9, 3), int))
