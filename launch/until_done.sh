#!/bin/sh
# For schedulers that start a job again when it fails: exit code 0 only when the run is whole.
#
#   sh launch/until_done.sh WORKDIR [FLAGS OF train.py]
#
# train.py itself ends with 0 after SIGTERM too, once its step is saved; a scheduler would take that
# for the end of the run. Here such an end is 75 ("try again"); every other code stays what it was.
# The mark of a whole run is its report.html. SIGTERM is passed on, as the first process of a
# container has to.
set -u

workdir=$1
shift
signalled=
trap 'signalled=yes; kill -TERM "${!-}" 2>/dev/null' TERM
.venv/bin/python train.py --distributed --workdir="$workdir" "$@" &
child=$!
wait "$child"
code=$?
while [ -n "$signalled" ]; do # the signal ended the wait, perhaps, and not the child
  signalled=
  wait "$child"
  again=$?
  [ "$again" -eq 127 ] || code=$again # 127: the code of the child is known already
done
[ "$code" -eq 0 ] || exit "$code"
whole='import sys; from etils import epath; sys.exit(0 if epath.Path(sys.argv[1]).exists() else 75)'
exec .venv/bin/python -c "$whole" "$workdir/report.html"
