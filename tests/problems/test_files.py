"""What kind of problem a file holds, by its name."""

import pytest

from qevo.errors import QevoError
from qevo.problems.files import problem_kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.cnf", "sat"),
        ("a.wcnf", "sat"),
        ("a.mc", "maxcut"),
        ("a.rud", "maxcut"),
        ("a.gset", "maxcut"),
        ("G1", "maxcut"),
        ("folder.cnf/g22.txt", "maxcut"),
        ("a.qubo", "qubo"),
        ("a.bqp", "qubo"),
        ("a.sparse", "qubo"),
        ("a.kp", "knapsack"),
        ("a.knapsack", "knapsack"),
        ("a.col", "coloring"),
        ("A.CNF.gz", "sat"),
        ("G1.txt.xz", "maxcut"),
    ],
)
def test_names_say_the_kind(name: str, kind: str) -> None:
    assert problem_kind(name) == kind


@pytest.mark.parametrize("name", ["a.txt", "g", "G1.dat", "cnf", "a.cnf.zip"])
def test_other_names_do_not(name: str) -> None:
    with pytest.raises(QevoError, match="does not say what kind of problem it is"):
        problem_kind(name)
