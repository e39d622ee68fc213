#!/bin/sh
# Run the quick tests on other versions of Python, and on the newest torch with a CPU build.
#
# Each combination gets a virtual environment in .venv-compat/. Where there is only a CUDA build of torch, several
# gigabytes, it is skipped and named, unless COMPAT_CUDA=1. TESTS selects tests (default: all that are not slow).
# The compiled engine may fall back on another torch, the eager one must pass.
cd "$(dirname "$0")/.." || exit 1
export OMP_NUM_THREADS=1
failed=0

find_python() {  # the newest interpreter of a version: 3.12 -> path
    for candidate in $(ls -d "$HOME"/.pyenv/versions/"$1".*/bin/python 2>/dev/null | sort -rV) "python$1"; do
        "$candidate" -c "import sys; assert '%d.%d' % sys.version_info[:2] == '$1'" 2>/dev/null && echo "$candidate" && return
    done
}

try() {  # name, interpreter, requirement for torch, constraints without or with torch
    venv=.venv-compat/$1
    "$2" -m venv "$venv" && "$venv/bin/pip" install --quiet --upgrade 'pip>=24' || return 1
    "$venv/bin/pip" install --quiet --dry-run --ignore-installed --no-deps --report "$venv/torch.json" "$3" >/dev/null 2>&1 ||
        { echo "compat: $1: skipped, no build of $3 can be found"; return 0; }
    build=$("$venv/bin/python" -c "
import json, sys
[found] = json.load(open(sys.argv[1]))['install']
cuda = any(word in line for line in found['metadata'].get('requires_dist', []) for word in ('nvidia', 'cuda'))
print(found['metadata']['version'], 'CUDA' if cuda else 'CPU')" "$venv/torch.json")
    case $build in
    *CUDA) [ "$COMPAT_CUDA" = 1 ] ||
        { echo "compat: $1: skipped, of torch ${build% *} there is only a CUDA build (COMPAT_CUDA=1 takes it)"; return 0; } ;;
    esac
    "$venv/bin/pip" install --quiet --constraint "$4" "torch==${build% *}" --editable '.[test]' || return 1
    echo "compat: $1: $("$venv/bin/python" -c "import platform, torch; print('Python', platform.python_version(), 'torch', torch.__version__)")"
    "$venv/bin/pytest" -p no:cacheprovider -m "not slow" $TESTS
}

mkdir -p .venv-compat
grep -v '^torch==' constraints.txt >.venv-compat/constraints.txt
pinned=$(grep '^torch==' constraints.txt)
for version in 3.12 3.13; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "compat: python$version: skipped, not installed"
    else
        try "python$version" "$python" "$pinned" constraints.txt || failed=1
    fi
done
try newest-torch "${PYTHON:-python3}" "torch>${pinned#torch==}" .venv-compat/constraints.txt || failed=1
exit $failed
