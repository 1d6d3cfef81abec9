"""What the checks share: counting, skips by name, a folder that goes away, our programs."""
import atexit
import contextlib
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings

warnings.filterwarnings("ignore")
this = pathlib.Path(sys.argv[0]).stem.removesuffix("_check")
full = "--full" in sys.argv[1:]
work = pathlib.Path(tempfile.mkdtemp(prefix="nc-check-"))
atexit.register(shutil.rmtree, work, ignore_errors=True)
_passed, _failed, _skipped = 0, 0, 0


def check(name, ok, detail=""):
    """Counts one check; `detail` is shown when it failed. Returns whether it passed."""
    global _passed, _failed
    if ok:
        _passed += 1
        print(f"ok: {name}", flush=True)
    else:
        _failed += 1
        print(f"FAILED: {name}", flush=True)
        for line in str(detail).splitlines():
            print(f"    {line}", flush=True)
    return bool(ok)


@contextlib.contextmanager
def case(name):
    """One check: it passes when the block ends without an exception."""
    try:
        yield
    except Exception:
        check(name, False, traceback.format_exc())
    else:
        check(name, True)


def skip(name, why):
    global _skipped
    _skipped += 1
    print(f"skipped: {name}: {why}", flush=True)


def finish():
    """The closing line that run.sh reads, and the exit status."""
    print(f"{_passed} passed, {_failed} failed, {_skipped} skipped", flush=True)
    sys.exit(1 if _failed else 0)


def need(*names):
    """The modules (one: itself); a missing one skips the whole file by the package's name."""
    modules = []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            skip(this, f"no package {name} ({error})")
            finish()
    return modules[0] if len(modules) == 1 else modules


def have(name):
    """Whether a module can be imported; where one is missing a part of a file is skipped."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def folder(variable, inside=""):
    """A folder of data (NC_DATA, NC_GOLDEN), or None where it is not there."""
    root = os.environ.get(variable)
    path = pathlib.Path(root) / inside if root else None
    return path if path and path.is_dir() else None


def program(name, *arguments, status=0, timeout=600, **environment):
    """Runs NC_BUILD/name; raises when it does not exit with `status`. Has stdout, stderr, returncode."""
    if "NC_BUILD" not in os.environ:
        sys.exit("error: NC_BUILD names the build to use")
    path = pathlib.Path(os.environ["NC_BUILD"]).resolve() / name
    done = subprocess.run([str(path), *map(str, arguments)], capture_output=True, text=True, cwd=work,
                          stdin=subprocess.DEVNULL, timeout=timeout, env={**os.environ, **environment})
    if done.returncode != status:
        raise AssertionError(f"{name} {' '.join(map(str, arguments))}: exit status {done.returncode}, not {status}\n"
                             f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done
