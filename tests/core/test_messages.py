"""What devices tell each other in a generation: scores, and nothing else."""

from support import on_devices

PROGRAM = """
import re
import jax
from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core.generation import Rules, first_carry
from qevo.core.program import compile_generations, placement
from support import Medians

problem, key = Medians.of(12), jax.random.key(1)
config = CoevolutionConfig(population=16, group=4, subgroups=2, spread=0.2)
algorithm = Coevolution(problem.space, config)
mesh, place = placement(jax.devices())
carry = first_carry(algorithm, problem, key)
arguments = jax.device_put((problem, key, carry), place)
program = compile_generations(
    algorithm, *arguments, length=3, rules=Rules(9), chunk=None, mesh=mesh, place=place
)
text = program.compiled.as_text()
kinds = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|send|recv"
print(re.findall(rf"= (\\S+?)(?:{{[^}}]*}})? ({kinds})\\(", text))
"""


def test_scores_are_all_that_devices_tell_each_other() -> None:
    assert on_devices(8, PROGRAM).strip() == "[('s32[16]', 'all-gather')]"
