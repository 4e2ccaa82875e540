#!/bin/sh
# Makes .venv-NAME: the locks of the runtime and of the development tools, and what requirements/NAME.txt pins on top of
# them. Always by pip, so that it is the build of PyTorch that pip is configured for. `make parity` and
# `make reinforcement` run it from the root of the repository.
#
#   sh requirements/reference.sh [NAME]     NAME is `reference` when not given
#
# PYTHON  the interpreter; when not given, that of .venv
#
# As with .venv, copies of what it was made from are written last: after an interruption the next call starts afresh.
set -eu

name=${1:-reference} venv=.venv-${1:-reference}
names="build cpu dev $name"
current() {
  for lock in $names; do cmp -s "requirements/$lock.txt" "$venv/made/$lock.txt" || return 1; done
}
! current || exit 0

echo "Setting up $venv, some minutes ..."
python=${PYTHON:-$(.venv/bin/python -c 'import sys; print(sys._base_executable)')}
rm -rf "$venv"
"$python" -m venv --without-pip "$venv"
install() { # install OPTION...: with pip of the interpreter itself
  "$python" -m pip --disable-pip-version-check --python "$venv/bin/python" install --quiet "$@"
}
install --require-hashes --no-deps --only-binary :all: -r requirements/build.txt
for lock in cpu dev; do # promise comes as source only
  install --require-hashes --no-deps --only-binary :all: --no-binary promise --no-build-isolation \
    -r "requirements/$lock.txt"
done
install -r "requirements/$name.txt"
mkdir "$venv/made.new"
for lock in $names; do cp "requirements/$lock.txt" "$venv/made.new/"; done
mv "$venv/made.new" "$venv/made"
