# SPDX-License-Identifier: Apache-2.0
"""libcairn from inside a Python program: see libcairn(3).

    import cairn, random

    cairn.hooks_add(restored=lambda generation: random.seed())
    with cairn.hold():
        ...                            # no checkpoint in here
    if cairn.checkpoint_me() == 1:
        print("restored, for the", cairn.generation(), "th time")

Every name exists with the prefix of C too (cairn.cairn_checkpoint_me). Where there is no libcairn the calls answer as where there is no job;
the library is looked for in CAIRN_LIBRARY, beside this file, in the build folder above it, and where the system has libraries.
"""
import contextlib
import ctypes
import ctypes.util
import errno
import os
import threading

_BEFORE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_AFTER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
_RESTORED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint)


class _Hooks(ctypes.Structure):
    _fields_ = [("before", _BEFORE), ("after", _AFTER), ("restored", _RESTORED), ("context", ctypes.c_void_p)]


def _load():
    here = os.path.dirname(os.path.abspath(__file__))
    for path in (os.environ.get("CAIRN_LIBRARY"), os.path.join(here, "libcairn.so"),
                 os.path.join(here, "..", "build", "libcairn.so"), "libcairn.so.0", "libcairn.so", ctypes.util.find_library("cairn")):
        try:
            library = ctypes.CDLL(path, use_errno=True) if path else None
        except OSError:
            continue
        if library is not None and hasattr(library, "cairn_checkpoint_me"):
            library.cairn_why.restype = ctypes.c_char_p
            library.cairn_generation.restype = ctypes.c_uint
            return library
    return None


_library = _load()
_kept = {}  # number -> what C holds pointers to
_kept_lock = threading.Lock()


def _checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, _library.cairn_why().decode(errors="replace") or os.strerror(number))
    return result


def is_job():
    """Whether this program runs in a job of Cairn's."""
    return bool(_library and _library.cairn_is_job())


def checkpoint_me():
    """0: saved. 1: this is the copy that was restored. Raises OSError (ENODEV: no job) when there is no checkpoint."""
    if not _library:
        raise OSError(errno.ENODEV, "there is no libcairn here")
    return _checked(_library.cairn_checkpoint_me())


class _Hold(contextlib.AbstractContextManager):
    def __exit__(self, *exception):
        release()


def hold():
    """No checkpoint from here to release(); or `with cairn.hold():`."""
    if _library:
        _checked(_library.cairn_hold())
    return _Hold()


def release():
    if _library:
        _checked(_library.cairn_release())


def hooks_add(before=None, after=None, restored=None):
    """before(): something true objects; an exception too. after(saved). restored(generation). They run in a thread of libcairn's. Returns a number."""
    def guarded_before(_context):
        try:
            return int(before() or 0)
        except BaseException:
            import traceback
            traceback.print_exc()
            return 1
    hooks = _Hooks(_BEFORE(guarded_before) if before else _BEFORE(0),
                   _AFTER(lambda _context, saved: after(bool(saved))) if after else _AFTER(0),
                   _RESTORED(lambda _context, generation: restored(generation)) if restored else _RESTORED(0), None)
    if not _library:
        return 0
    with _kept_lock:
        number = _checked(_library.cairn_hooks_add(ctypes.byref(hooks)))
        _kept[number] = hooks
    return number


def hooks_remove(number):
    if _library:
        _checked(_library.cairn_hooks_remove(number))
        # Not freed: one that runs at this moment is still being used.


def generation():
    """How often this process has been restored."""
    return _library.cairn_generation() if _library else 0


def restore_id():
    """16 bytes, others after each restore: of two copies of one image too."""
    buffer = ctypes.create_string_buffer(16)
    if _library:
        _library.cairn_restore_id(buffer)
    return buffer.raw


def why():
    """Why the last call of this thread that failed did."""
    return _library.cairn_why().decode(errors="replace") if _library else "there is no libcairn here"


cairn_is_job, cairn_checkpoint_me, cairn_hold, cairn_release = is_job, checkpoint_me, hold, release
cairn_hooks_add, cairn_hooks_remove, cairn_generation, cairn_restore_id, cairn_why = hooks_add, hooks_remove, generation, restore_id, why
