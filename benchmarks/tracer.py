"""Run a function in a child process and kill it before its n-th system call (Linux, ptrace)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable

_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_MARK_SYSCALLS, _DIE_WITH_TRACER = 0x1, 0x100000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def killed_before(function: Callable[[], None], number: int) -> bool:
    """Fork, run `function`, kill -9 the child just before system call `number`, counted from 1.

    Returns
    -------
    bool
        False where the child ended by itself before it made so many system calls.

    Raises
    ------
    RuntimeError
        The child failed on its own account, or may not be traced here.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_traced(function)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise RuntimeError("this system does not allow tracing (ptrace) of a child process")
    _libc.ptrace(_SETOPTIONS, child, None, _MARK_SYSCALLS | _DIE_WITH_TRACER)
    return _follow(child, number)


def _be_traced(function: Callable[[], None]) -> None:
    code = 1
    try:
        if _libc.ptrace(_TRACEME, 0, None, None) != 0:
            os._exit(2)
        os.kill(os.getpid(), signal.SIGSTOP)
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _follow(child: int, number: int) -> bool:
    stops = 0
    passed_on = 0
    while True:
        _libc.ptrace(_SYSCALL, child, None, passed_on)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) != 0:
                raise RuntimeError("the traced function failed")
            return False
        if os.WIFSIGNALED(status):
            raise RuntimeError(f"the traced function died of signal {os.WTERMSIG(status)}")
        stop = os.WSTOPSIG(status)
        passed_on = 0 if stop == _SYSCALL_STOP else stop
        if stop == _SYSCALL_STOP:
            stops += 1
            if stops == 2 * number - 1:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return True
