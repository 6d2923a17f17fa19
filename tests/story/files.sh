#!/bin/bash
# The files of a run: none that it did not make is touched without --overwrite, none that it reads even with it.
#
#   files.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
make_text 20000 >text
make_text 3000 >other

snapshot() { find . -printf '%p %y %s %m %l\n' | sort && find . -type f -exec cksum {} + | sort; }

# refused PART... -- OPTION...: train ends with 2 and one line that has every part; no file has changed. $ranks: under mpirun.
ranks=
refused() {
  local parts=() part line launch=()
  while [ "$1" != -- ]; do
    parts+=("$1")
    shift
  done
  shift
  if [ -n "$ranks" ]; then launch=("${mpirun_quiet[@]}" -n "$ranks"); fi
  rm -f out err
  snapshot >../before.$$
  check "refused: $*" quiet 2 timeout -k 5 60 "${launch[@]}" "$unroll" train "$@"
  line=$(grep -v '^unroll: warning: ' err)
  rm -f out err
  snapshot >../after.$$
  check "nothing has changed: $*: $(diff ../before.$$ ../after.$$)" cmp -s ../before.$$ ../after.$$
  rm -f ../before.$$ ../after.$$
  check "one line: $line" [ "$(grep -c . <<<"$line")" = 1 ]
  for part in "${parts[@]}"; do check "it says $part: $line" grep -qF -- "$part" <<<"$line"; done
}
trains() { quiet 0 timeout -k 5 60 "$unroll" train "$@" "${tiny[@]}"; }

# ------------------------------------------------- what it reads stays, always
mkdir reads && cd reads || exit 1
cp ../text corpus.jsonl
cp ../text plain
cp ../text c.best.h5
cp ../text c.2.h5
ln plain c.h5       # the text by another name,
ln -s plain link.h5 # and by a link
refused corpus.jsonl 'the log' -- corpus.jsonl -o corpus.h5 --overwrite
refused plain 'the run file' -- plain -o plain --overwrite
refused plain 'the run file' -- plain -o ./c.h5 --overwrite
refused plain 'the run file' -- plain -o link.h5 --overwrite
refused c.best.h5 'the best model' -- ../text --valid c.best.h5 -o c.h5 --overwrite
ranks=2
refused c.2.h5 --keep -- ../text c.2.h5 -o c.h5 --keep 2 --overwrite
ranks=
mkdir folder
cp ../text folder/run.jsonl
refused 'folder: no text' 'those of the run itself' -- folder -o folder/run.h5 --overwrite # which is left out of a folder's text
check "a text that no run writes" trains c.2.h5 -o corpus.h5 --keep 1 --overwrite # which replaces the log of that name
cd ..

# ------------------------------- what it did not make stays without --overwrite
mkdir foreign && cd foreign || exit 1
for name in run.h5 run.jsonl run.best.h5 run.1.h5 run.3.h5; do
  cp ../other $name
  refused $name --overwrite -- ../text -o run.h5 --keep 3
  if [ $name != run.h5 ]; then refused $name -- ../text -o run.h5 --keep 3 --resume; fi
  mv $name run.4.h5
done
ranks=2
cp ../other run.best.h5
refused run.best.h5 --overwrite -- ../text -o run.h5
rm run.best.h5
ranks=
: >run.jsonl
check "what the run does not write is in nobody's way, nor is an empty log" trains ../text -o run.h5 --keep 3
check "it is left alone" cmp run.4.h5 ../other

# Its own files are no hindrance to a run that goes on; those of another run are.
parts=(../text -o part.h5 --checkpoint-every 5 --valid-every 10)
check "a run in two parts" trains "${parts[@]}" --max-steps 20 --keep 2
check "which goes on" trains "${parts[@]}" --max-steps 40 --keep 2 --resume
check "they left a best model and two older ones" [ -f part.best.h5 -a -f part.2.h5 ]
for name in part.best.h5 part.1.h5 part.3.h5; do
  if [ -f $name ]; then mv $name kept; fi
  cp run.h5 $name
  refused $name 'is not of the run part.h5' -- ../text -o part.h5 --resume --keep 3
  rm $name
  if [ -f kept ]; then mv kept $name; fi
done
check "no older one is in the way" trains "${parts[@]}" --resume --keep 3

# A life that died before its first checkpoint leaves a log, and perhaps a best model: the next one begins anew.
rm part.h5 part.?.h5
check "no run file any more: --resume begins it again" trains "${parts[@]}" --resume --max-steps 5
check "that best model was of a step to come" [ ! -e part.best.h5 ]
check "the life after that goes on" trains "${parts[@]}" --resume --max-steps 0
rm part.h5
refused part.best.h5 'is not of the run part.h5' -- "${parts[@]}" --resume "${tiny[@]}" --seed 2
refused part.best.h5 'is not of the run part.h5' -- "${parts[@]/text/other}" --resume "${tiny[@]}"
refused part.jsonl --overwrite -- ../text -o part.h5
check "--overwrite replaces all" trains ../text -o part.h5 --overwrite
cd ..

# ------------------------------------- a new run over an old one leaves nothing of it
mkdir old && cd old || exit 1
check "a run with a best model and older ones" trains ../text -o run.h5 --checkpoint-every 100 --valid-every 100 --keep 3
check "they are there" [ -f run.best.h5 -a -f run.3.h5 ]
cp run.h5 run.4.h5 # belongs to it as well,
cp ../foreign/run.h5 run.5.h5 # but this does not
check "another run takes its name" trains ../text -o run.h5 --overwrite --valid-fraction 0 --seed 2 --max-steps 2
check "and no file of it stays: $(echo run.*)" [ "$(echo run.*)" = "run.5.h5 run.h5 run.jsonl" ]
check "with a best model of its own" trains ../text -o run.h5 --overwrite --valid-every 2 --max-steps 5 --checkpoint-every 2 --keep 1
check "that and its own older one stay: $(echo run.*)" [ "$(echo run.*)" = "run.1.h5 run.5.h5 run.best.h5 run.h5 run.jsonl" ]
cd ..

# --------------------------------------------- a link stays a link, to the new file
mkdir links links/scratch && cd links || exit 1
ln -s scratch/there.h5 run.h5 # to nothing yet
check "a run through a link" trains ../text -o run.h5 --max-steps 5
check "goes on" trains ../text -o run.h5 --max-steps 9 --resume --checkpoint-every 2 --keep 2
check "the link is one" [ "$(readlink run.h5)" = scratch/there.h5 ]
check "to the run file" quiet 0 "$unroll" info scratch/there.h5
check "of the last step" grep -q 'after step 9 ' out
check "the older ones are files of their own" [ "$(find . -type f -name 'run.?.h5' | wc -l)" = 2 ]
quiet 0 "$unroll" info run.1.h5
check "of the steps before" grep -q 'after step 8 ' out
check "beside the file is nothing else: $(ls -A scratch)" [ "$(ls -A scratch)" = there.h5 ]
ln -s run.h5 text.h5
refused run.h5 'the run file' -- run.h5 -o text.h5 --overwrite --level byte
ln -s round.h5 round.h5
refused round.h5 links -- ../text -o round.h5
cd ..

# ------------------------------------------------------- what is no file at all
# Told at once, by every command that reads a run file or writes a file, never waited for.
mkdir odd && cd odd || exit 1
cp ../text text
trains text -o good.h5 || fail "no run file"
mkfifo pipe.h5
mkdir folder.h5
ln -s pipe.h5 link.h5
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket.h5")' || mkfifo socket.h5
rm -f out err
find . -type f -exec cksum {} + >../before
says() { # says COMMAND...
  check "$*" quiet 2 timeout -k 5 20 "$unroll" "$@"
  check "$*: says so: $(cat err)" grep -qE '(pipe|folder|link|socket).h5: .*(regular file|[Ii]s a (folder|directory))' err
}
for odd in folder.h5 link.h5 socket.h5; do
  says info $odd
  says train --resume -o $odd
  says train text -o $odd --overwrite
done
for command in 'info pipe.h5' 'info --finished pipe.h5' 'info --verify pipe.h5' 'eval pipe.h5 text' 'sample pipe.h5' \
  'compare good.h5 pipe.h5' 'export pipe.h5 --csv new' 'export good.h5 --csv pipe.h5 --overwrite' 'gradflow pipe.h5 text' \
  'train --resume -o pipe.h5' 'train text --resume -o pipe.h5' 'train text --init-from pipe.h5'; do
  # shellcheck disable=SC2086 # words
  says $command
done
check "a device" quiet 2 timeout -k 5 20 "$unroll" info /dev/zero
check "says so: $(cat err)" grep -q '/dev/zero: .*regular file' err
rm -f out err
check "nothing is written" diff ../before <(find . -type f -exec cksum {} +)
cd ..
mkfifo pipe.jsonl
refused pipe.jsonl 'no regular file' -- text -o pipe.h5 --overwrite

finish
