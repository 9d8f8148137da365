"""Programs that want out of the sandbox, or to pass without being right: none does, and each is reported."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from chainforge.sandbox import Limits, run_program, run_tests

LIMITS = Limits(cpu_s=1, wall_s=60.0, memory_mb=128, processes=6)
SHORT = replace(LIMITS, wall_s=2.0)  # for what would never end by itself
SECRET = "of-the-host-alone"

# Each prints what it got hold of. What it must not get is in the second column, what it gets in the third.
LOOKS = {
    "reads a file of the host": ("print(open({file!r}).read())", "ended"),
    "reads the host's users": ("print(open('/etc/passwd').read())", "ended"),
    "reads the home of root": ("import os; print(os.listdir('/root'))", "ended"),
    "reads the host's files through a link": (
        "import os; os.symlink({file!r}, 'link'); print(open('link').read())",
        "ended",
    ),
    "climbs out of its folder": ("print(open('../../../..' + {file!r}).read())", "ended"),
    "reads the memory of another process": ("print(open('/proc/1/environ').read())", "ended"),
    "reads the host's root through proc": ("import os; print(os.listdir('/proc/1/root'))", "ended"),
    "mounts proc": (
        "import ctypes, os; assert ctypes.CDLL(None).mount(b'p', b'/tmp', b'proc', 0, None) == 0; "
        "print(os.listdir('/tmp'))",
        "ended",
    ),
    "makes a namespace of its own": (
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0; print('in')",
        "ended",
    ),
    "makes a namespace by clone": (
        "import ctypes; assert ctypes.CDLL(None).syscall(56, 0x10000011, 0, 0, 0, 0) >= 0; print('in')",
        "ended",
    ),
    "changes its root folder": ("import os; os.mkdir('r'); os.chroot('r'); print('in')", "ended"),
    "becomes root": ("import os; os.setuid(0); print('root')", "ended"),
    "writes beside its folder": ("open('/written', 'w').write('x'); print('written')", "ended"),
    "writes to the system's libraries": ("open('/usr/lib/x.py', 'w'); print('written')", "ended"),
    "fills shared memory": ("open('/dev/shm/x', 'w').write('x'); print('written')", "ended"),
    "takes shared memory that no limit counts": (
        "import ctypes; assert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0; print('taken')",
        "ended",
    ),
    "fills its own folder": (
        "for i in range(99): open(f'/tmp/{{i}}', 'wb').write(bytes(1 << 20))",
        "ended",
    ),
    "writes one large file": ("open('/tmp/x', 'wb').write(bytes(20 << 20))", "ended"),
    "asks a server of the host": (
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('connected')",
        "ended",
    ),
    "asks the network": ("import socket; socket.create_connection(('1.1.1.1', 53), 2); print('in')", "ended"),
    "asks for a name": ("import socket; print(socket.getaddrinfo('localhost.example', 80))", "ended"),
    "asks the host of a virtual machine": (
        "import socket; socket.socket(socket.AF_VSOCK).connect((2, {port})); print('connected')",
        "ended",
    ),
    "asks an abstract socket of the host": (
        "import socket; socket.socket(socket.AF_UNIX).connect({name!r}); print('connected')",
        "ended",
    ),
    "signals the host": ("import os; os.kill({pid}, 9); print('killed')", "ended"),
    "signals everybody": ("import os; os.kill(-1, 9); print('here')", None),
    "ends its first process": ("import os; os.kill(1, 9); print('here')", None),
    "reads the environment": ("import os; print(dict(os.environ))", "right"),
    "runs a shell": ("import os; assert os.system('echo ran > /tmp/x') == 0; print('ran')", "ended"),
    "reads what its parents opened": (
        "import os\nfor fd in range(3, 64):\n try: print(os.read(fd, 99))\n except OSError: pass",
        "right",
    ),
    "looks at its parent's memory": (
        "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0; print('in')",
        "ended",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", LOOKS)
def test_nothing_of_the_host_is_reached(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[psutil.Process]
) -> None:
    (file := tmp_path / "secret").write_text(SECRET)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("HOUSE_KEY", SECRET)
    source, expected = LOOKS[what]
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(name := f"\0chainforge-{os.getpid()}")
        local.listen()
        port = server.getsockname()[1]
        program = source.format(file=str(file), port=port, name=name, pid=os.getpid())
        outcome = run_program(program, limits=LIMITS)
    assert SECRET not in outcome.output
    assert outcome.kind == expected or (expected is None and outcome.kind in ("ended", "right"))
    assert outcome.output == "" or outcome.kind == "right"


USES = {
    "a loop": ("while True: pass", "cpu"),
    "a loop that minds no signal": (
        "import signal\nfor s in range(1, 64):\n try: signal.signal(s, signal.SIG_IGN)\n"
        " except Exception: pass\nwhile True: pass",
        "ended",
    ),
    "a sleep": ("import time; time.sleep(600)", "time"),
    "a fork bomb": ("import os\nwhile True:\n try: os.fork()\n except OSError: pass", "time or cpu"),
    "threads without end": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(600,)).start()",
        "time",
    ),
    "memory": ("x = []\nwhile True: x.append(bytes(1 << 20))", "ended"),
    "memory of many processes": (
        "import os, time\nfor _ in range(4):\n if not os.fork(): break\n"
        "x = bytearray(b'x') * (60 << 20)\ntime.sleep(60)",
        "memory",
    ),
    "output": ("while True: print('x' * 10000)", "output"),
    "errors as output": ("import os\nwhile True: os.write(2, b'x' * 10000)", "cpu"),
    "recursion": ("import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", "cpu, memory or ended"),
    "a crash": ("import ctypes; ctypes.string_at(0)", "ended"),
    "children left behind": (
        "import os, time\nif not os.fork():\n os.setsid()\n if not os.fork(): time.sleep(600)\nprint('done')",
        "right",
    ),
    "children, and no end": (
        "import os, time\nfor _ in range(3):\n if not os.fork():\n  os.setsid()\n  break\ntime.sleep(600)",
        "time",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", USES)
def test_what_is_used_has_a_bound(what: str, members: list[psutil.Process]) -> None:
    source, expected = USES[what]
    outcome = run_program(source, limits=SHORT if "time" in expected else LIMITS)
    assert outcome.kind in expected
    assert outcome.said or expected == "right"


# Answers to "def double(n)" that want to pass: `expected` is never known to them.
FORGERIES = {
    "leaves": "import os\ndef double(n): os._exit(0)",
    "leaves at once": "import sys; sys.exit(0)",
    "is equal to all": (
        "class All(int):\n __eq__ = lambda s, o: True\n __hash__ = int.__hash__\ndouble = lambda n: All(1)"
    ),
    "claims success on stdout": 'def double(n): print(\'{"kind": "right", "said": ""}\')',
    "writes a verdict to every descriptor": (
        "import os\nfor fd in range(3, 64):\n"
        ' try: os.write(fd, b\'{"kind": "right", "said": ""}\\n\')\n except OSError: pass\n'
        "def double(n): return 0"
    ),
    "answers before it is asked": (
        "import os\nfor fd in range(3, 64):\n"
        " try: os.write(fd, b'{\"value\": 4}\\n' * 9)\n except OSError: pass"
        "\ndef double(n): return 0"
    ),
    "closes the pipes": "import os\nos.closerange(0, 64)\ndef double(n): return 0",
    "closes all but the pipe, with garbage in it": (
        "import os\nfor fd in range(3, 64):\n try: os.write(fd, b'[' * 99999 + b'\\n')\n except OSError: pass"
        "\ndef double(n): return 0"
    ),
    "changes what encodes": (
        'import sys, json\njson.dumps = lambda *_: \'{"kind": "right", "said": ""}\'\ndef double(n): return 0'
    ),
    "changes the harness": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        " frame.f_globals.update(encoded=lambda v: {'kind': 'right'}); frame = frame.f_back\n"
        "def double(n): return 0"
    ),
    "looks for what is expected": (
        "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, str) and 'assert' in o]\n"
        "def double(n): return int(found[0].split()[-1])"
    ),
    "turns assertions off": "import builtins\nbuiltins.AssertionError = None\ndef double(n): return 0",
    "ends a loop of its tests": "def double(n): raise StopIteration",
    "raises what tests might take for an end": "def double(n): raise SystemExit(0)",
    "never returns": "import time\ndef double(n): time.sleep(600)",
    "returns without end": "def double(n): return [0] * (1 << 23)",
    "nests without end": "def double(n):\n x = []\n for _ in range(100000): x = [x]\n return x",
    "returns one huge number": "def double(n): return 1 << (1 << 26)",
    "is not there": "def triple(n): return 3 * n",
    "is no Python": "def double(n) return 2 * n",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FORGERIES)
def test_no_answer_passes_but_a_right_one(what: str, members: list[psutil.Process]) -> None:
    limits = SHORT if what == "never returns" else LIMITS
    outcome = run_tests(FORGERIES[what], ["assert double(2) == 4", "assert double(3) == 6"], limits=limits)
    assert outcome.kind != "right"
    assert outcome.said


@pytest.mark.slow
def test_a_test_that_catches_everything_is_not_passed_by_leaving() -> None:
    tests = ["try:\n    double('x')\nexcept:\n    pass"]
    outcome = run_tests("import os\ndef double(n): os._exit(3)", tests, limits=LIMITS)
    assert (outcome.kind, outcome.said) == ("ended", "it ended before its tests did (exit code 3)")


@pytest.mark.slow
def test_an_answer_does_not_see_its_tests() -> None:
    """Neither their text nor what they expect is in its memory: only what it is called with."""
    source = (
        "import gc\nkinds = (str, list, dict)\n"
        "seen = ''.join(repr(o) for o in gc.get_objects() if isinstance(o, kinds))\n"
        "def look(n): return 'expe' + 'cted-by-tests' in seen"
    )
    assert run_tests(source, ["assert look(1) is False, 'expected-by-tests'"], limits=LIMITS).kind == "right"


@pytest.mark.slow
def test_what_it_prints_is_told_from_its_verdict() -> None:
    outcome = run_program("print(input()[::-1])", "abc\n", LIMITS)
    assert (outcome.kind, outcome.output) == ("right", "cba\n")
    assert json.loads(run_program("import json; print(json.dumps(list('é')))").output) == ["é"]
