"""What prompt sources share: rows that know where they stand, the hub, and splits that never meet."""

from chainforge.problems.draw import check_split, draw_apart, split_of
from chainforge.problems.hub import hub_rows
from chainforge.problems.rows import Row, choose, file_rows, read_pattern

__all__ = ["Row", "check_split", "choose", "draw_apart", "file_rows", "hub_rows", "read_pattern", "split_of"]
