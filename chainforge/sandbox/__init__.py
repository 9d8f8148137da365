"""Foreign programs, run where they can do no harm, and a verdict that they cannot forge."""

from chainforge.sandbox.bubblewrap import Limits
from chainforge.sandbox.probe import check_sandbox
from chainforge.sandbox.run import Outcome, run_program, run_tests

__all__ = ["Limits", "Outcome", "check_sandbox", "run_program", "run_tests"]
