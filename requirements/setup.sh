#!/bin/sh
# Makes .venv hold what the locks beside this file pin; `make` runs it from the root of the repository.
#
#   sh requirements/setup.sh [dev]     the runtime; with `dev` the development tools too
#
# GCS     1 adds what runs in gs:// buckets need (EXTRA=tpu and `dev` have it anyway)
# FILTERS  1 adds what some of config.data.filters need (`dev` has it anyway)
# HF      1 adds Hugging Face's datasets (`dev` has it anyway)
# QUANTIZATION  1 adds what model.quantization needs (`dev` has it anyway)
# TASKS   1 adds what BLEU, chrF and ROUGE of a task's answers need (`dev` has it anyway)
# TOKENIZERS  1 adds what SentencePiece's and tiktoken's files need (`dev` has it anyway)
# EXTRA   cpu, cuda12, cuda13 or tpu; when not given, what .venv has already, else cpu
# PYTHON  the interpreter; when not given, the first of python3, python3.13, python3.12, python3.11 that is new enough
# UV      path of uv; when not given, the one on PATH; empty to use pip
#
# A finished .venv keeps copies of the locks that it was made from in .venv/locks. They are removed first and written
# last: equal copies mean that there is nothing to do, and after an interruption the next call starts afresh.
set -eu

die() {
  echo "error: $*" >&2
  exit 2
}

current() { # current NAME...: are these the locks that .venv was made from?
  for name in "$@"; do cmp -s "requirements/$name.txt" ".venv/locks/$name.txt" || return 1; done
}

stamp() { # stamp NAME...: record that .venv was made from these locks
  rm -rf .venv/locks .venv/locks.new
  mkdir .venv/locks.new
  for name in "$@"; do cp "requirements/$name.txt" .venv/locks.new/; done
  mv .venv/locks.new .venv/locks
}

newline='
'
probe() { # probe PYTHON: sets $version, and $python to the interpreter itself, even where PYTHON is inside a .venv
  program='import sys; print("%d.%d.%d" % sys.version_info[:3]); print(sys._base_executable)'
  probed=$("$1" -c "$program" 2>/dev/null) || return 1
  version=${probed%%"$newline"*}
  python=${probed#*"$newline"}
}

find_python() { # probes candidates until one is new enough
  version="not there"
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    probe "$candidate" || continue
    case $version in
      2.* | 3.[0-9].* | 3.10.*) ;;
      *) return ;;
    esac
  done
  die "Podium needs Python 3.11 or later and ${PYTHON:-python3} is $version; name another: make train PYTHON=python3.12"
}

create() { # an empty .venv
  if [ -n "$uv" ]; then
    "$uv" venv --quiet --python "$python" .venv
    return
  fi
  "$python" -m venv --without-pip .venv
  "$python" -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip --default-pip >/dev/null 2>&1 ||
    die "Python $version ($python) has no pip: install pip (Debian, Ubuntu: apt install python3-pip), or uv"
}

install() { # install NAME...: what these locks pin, and nothing else
  for name in "$@"; do
    options="--require-hashes --no-deps --only-binary :all:"
    [ "$name" = build ] || options="$options --no-binary promise,rouge-score --no-build-isolation" # they are source only
    [ -t 2 ] || options="$options --quiet"
    # shellcheck disable=SC2086 # the options are words
    if [ -n "$uv" ]; then
      "$uv" pip install --python .venv/bin/python $options -r "requirements/$name.txt"
    elif [ -x .venv/bin/pip ]; then
      .venv/bin/python -m pip --disable-pip-version-check install $options -r "requirements/$name.txt"
    else # the interpreter's own pip brings in the locked one
      "$python" -m pip --disable-pip-version-check --python .venv/bin/python install $options -r "requirements/$name.txt"
    fi
  done
}

uv=${UV-$(command -v uv || true)}
start=$(date +%s)

extra=${EXTRA:-}
if [ -z "$extra" ]; then
  for extra in cuda12 cuda13 tpu cpu; do [ ! -f ".venv/locks/$extra.txt" ] || break; done
fi
case $extra in
  cpu | cuda12 | cuda13 | tpu) ;;
  *) die "EXTRA=$extra is unknown: take cpu, cuda12, cuda13 or tpu" ;;
esac

fits() { # is .venv finished, for this EXTRA and this PYTHON?
  current build "$extra" && [ -x .venv/bin/python ] || return 1
  [ -z "${PYTHON:-}" ] && return
  find_python
  asked=$version
  probe .venv/bin/python && [ "$version" = "$asked" ]
}

has() { [ -f ".venv/locks/$1.txt" ]; }

add=
[ -z "${GCS:-}" ] && ! has gcs || add="gcs"
[ -z "${FILTERS:-}" ] && ! has filters || add="$add filters"
[ -z "${HF:-}" ] && ! has hf || add="$add hf"
[ -z "${QUANTIZATION:-}" ] && ! has quantization || add="$add quantization"
[ -z "${TASKS:-}" ] && ! has tasks || add="$add tasks"
[ -z "${TOKENIZERS:-}" ] && ! has tokenizers || add="$add tokenizers"
[ "${1:-}" != dev ] && ! has dev || add="$add dev"

done_something=
if ! fits; then
  find_python
  echo "Setting up .venv: Python $version, EXTRA=$extra, with ${uv:-pip, about a minute} ..."
  rm -rf .venv
  create
  install build "$extra"
  stamp build "$extra"
  done_something=yes
fi
have="build $extra"
for name in $add; do
  if ! current "$name"; then
    echo "Adding $name to .venv ..."
    rm -rf .venv/locks
    install "$name"
    # shellcheck disable=SC2086 # the names are words
    stamp $have "$name"
    done_something=yes
  fi
  have="$have $name"
done
[ -z "$done_something" ] || echo "Set up in $(($(date +%s) - start)) s."
