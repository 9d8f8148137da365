"""The system calls that a sandboxed program is refused, as a seccomp filter for bubblewrap.

Namespaces hide files, processes and the network. What they leave open is closed here: sockets without a
namespace (a virtual machine's vsock), shared memory that no limit counts, namespaces of its own, and parts of
the kernel that no tested program needs.
"""

import errno
import platform
import struct

from chainforge.errors import ChainForgeError

LOAD, EQUAL, ANY_OF, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # instructions of classic BPF
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16  # places in struct seccomp_data
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000  # what the filter returns; REFUSE has an errno
OTHER_ABI = 0x40000000  # x32, whose numbers would pass the table
NEW_NAMESPACES = 0x7E020000  # the bits of clone that ask for one
AF_UNIX = 1
# Name: number on x86-64, number on arm64.
REFUSED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "unshare": (272, 97), "setns": (308, 268), "shmget": (29, 194),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "personality": (135, 92),
}  # fmt: skip
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # the column, AUDIT_ARCH


def system_call_filter(machine: str = "") -> bytes:
    """The filter for this machine. Raises ChainForgeError for one whose numbers are not known."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise ChainForgeError(
            f"the sandbox does not know the system calls of {machine}",
            "run foreign code on x86-64 or arm64, or leave out what needs the sandbox",
        )
    column, arch = ARCHITECTURES[machine]
    refuse = REFUSE | errno.EPERM
    program = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    program += [(AT_LEAST, 0, 1, OTHER_ABI), (RETURN, 0, 0, refuse)]
    for numbers in REFUSED.values():
        program += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, refuse)]
    # Its flags are in memory, where a filter cannot look; the C library then takes clone instead.
    program += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    program += [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (ANY_OF, 0, 1, NEW_NAMESPACES)]
    program += [(RETURN, 0, 0, refuse), (RETURN, 0, 0, ALLOW)]
    program += [(EQUAL, 0, 3, SOCKET[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (EQUAL, 1, 0, AF_UNIX)]
    program += [(RETURN, 0, 0, refuse), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
