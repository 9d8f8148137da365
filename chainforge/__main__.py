"""`python -m chainforge`: the command line."""

from chainforge.cli import cli

if __name__ == "__main__":
    cli(prog_name="chainforge")
