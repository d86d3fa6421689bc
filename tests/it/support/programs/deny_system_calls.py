"""deny_system_calls.py ERROR NUMBERS PROGRAM...: runs a program whose system calls with these numbers fail with ERROR."""

import ctypes
import errno
import os
import struct
import sys

error, numbers, program = getattr(errno, sys.argv[1]), [int(number) for number in sys.argv[2].split(",")], sys.argv[3:]
# linux/filter.h, linux/seccomp.h: load the number; jump to the last instruction if it is denied; allow; fail.
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000 | error
instructions = [struct.pack("HBBI", LOAD, 0, 0, 0)]
for index, number in enumerate(numbers):
    instructions.append(struct.pack("HBBI", JUMP_IF_EQUAL, len(numbers) - index, 0, number))
instructions += [struct.pack("HBBI", RETURN, 0, 0, ALLOW), struct.pack("HBBI", RETURN, 0, 0, FAIL)]
code = ctypes.create_string_buffer(b"".join(instructions))
description = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
SET_NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2
for call in ((SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_SECCOMP, FILTER, description)):
    if libc.prctl(*call) != 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execvp(program[0], program)
