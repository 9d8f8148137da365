"""The processes of a step: what the launcher says of them, and what they tell each other."""

import pytest

from chainforge.errors import ChainForgeError
from chainforge.run.world import World, this_world


def test_without_a_launcher_there_is_one_process() -> None:
    assert this_world({}) == World(0, 1)
    assert World().is_first
    assert World().share("said") == ["said"]


def test_a_launcher_says_which_process_of_how_many() -> None:
    world = this_world({"RANK": "2", "WORLD_SIZE": "4"})
    assert world == World(2, 4)
    assert not world.is_first
    assert world.label("sft") == "sft, rank 2 of 4"
    assert this_world({"RANK": "0", "WORLD_SIZE": "1"}) == World()


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"RANK": "1"}, "RANK=1 without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2: ranks go from 0"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0: ranks go from 0"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 and WORLD_SIZE=2: these must be whole numbers"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK= and WORLD_SIZE=2: these must be whole numbers"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one and WORLD_SIZE=2: these must be whole numbers"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(ChainForgeError, match=problem):
        this_world(environment)
