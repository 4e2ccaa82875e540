#!/bin/sh
# Makes .venv-reference: the locks of the runtime and of the development tools, and PyTorch and transformers beside
# them. Always by pip, so that it is the build of PyTorch that pip is configured for. `make parity` runs it from the
# root of the repository.
#
# PYTHON  the interpreter; when not given, that of .venv
#
# As with .venv, copies of what it was made from are written last: after an interruption the next call starts afresh.
set -eu

names="build cpu dev reference"
current() {
  for name in $names; do cmp -s "requirements/$name.txt" ".venv-reference/made/$name.txt" || return 1; done
}
! current || exit 0

echo "Setting up .venv-reference, some minutes ..."
python=${PYTHON:-$(.venv/bin/python -c 'import sys; print(sys._base_executable)')}
rm -rf .venv-reference
"$python" -m venv --without-pip .venv-reference
install() { # install OPTION...: with pip of the interpreter itself
  "$python" -m pip --disable-pip-version-check --python .venv-reference/bin/python install --quiet "$@"
}
install --require-hashes --no-deps --only-binary :all: -r requirements/build.txt
for name in cpu dev; do # promise and rouge-score come as source only
  install --require-hashes --no-deps --only-binary :all: --no-binary promise,rouge-score --no-build-isolation \
    -r "requirements/$name.txt"
done
install -r requirements/reference.txt
mkdir .venv-reference/made.new
for name in $names; do cp "requirements/$name.txt" .venv-reference/made.new/; done
mv .venv-reference/made.new .venv-reference/made
