#!/bin/bash
# Text from hell: what no text is, or hardly, given to train at every level and to eval; a file that shrinks, grows or changes while it
# is read. A right result, or one line and status 1 or 2: never a crash, a hang, or a run of what is not there.
#
#   hell.sh SOURCE UNROLL FAULT [all]    all: eval at every level, more rounds, and a line of 1 GB
. "$(dirname "$0")/lib.sh" "$@"

tiny=(--hidden 4 --batch 2 --steps 4 --max-steps 3 --valid-fraction 0 --shards 1)
levels=(byte char word)
for level in "${levels[@]}"; do
  check "a model of level $level" quiet 0 "$unroll" train text "${tiny[@]}" --level "$level" -o "$level.h5"
done
results=0 errors=0 all=no rounds=3
[ "${4:-}" != all ] || all=yes rounds=12

# stands STATUSES COMMAND...: it ends by itself, with one of these; with 1 or 2 in one line
stands() {
  local statuses=$1 status lines
  shift
  timeout -k 5 "${limit:-60}" "$@" >out 2>err
  status=$?
  lines=$(grep -c '^unroll: error: .' err)
  case " $statuses " in *" $status "*) ;; *)
    echo "status $status, expected $statuses: $*"
    tail -n 5 err
    return 1
    ;;
  esac
  if [ $status = 0 ]; then
    results=$((results + 1))
    [ "$lines" = 0 ]
  else
    errors=$((errors + 1))
    [ "$lines" = 1 ] && [ "$(grep -vc '^unroll: warning: ' err)" = 1 ] || { cat err && return 1; }
  fi
}

# hell FILE BYTE CHAR WORD: the statuses that train may have at each level; eval may also take what is too short to train on
hell() {
  local file=$1 level
  shift
  for level in "${levels[@]}"; do
    rm -f no.h5 no.jsonl no.best.h5
    check "$file: train, $level" stands "$1" "$unroll" train "$file" "${tiny[@]}" --level "$level" -o no.h5
    [ "$level" = char ] || [ $all = yes ] || { shift && continue; }
    check "$file: eval, $level" stands "0 $1" "$unroll" eval "$level.h5" "$file"
    shift
  done
}

: >empty
hell empty 2 2 2
printf a >one
hell one 2 2 2
printf '\n' >end
hell end 2 2 2
head -c 3000 /dev/zero >zeros
hell zeros 0 0 2
{ cat text && printf 'a\0b \0 c\n'; } >nul
hell nul 0 0 0
head -c 3000 /dev/zero | tr '\0' '\n' >ends
hell ends 0 0 0
head -c 3000 /dev/zero | tr '\0' ' ' >blanks
hell blanks 0 0 2
{ cat text && printf '\xed\xa0\x80\n'; } >surrogate
hell surrogate 0 2 2
{ cat text && printf '\xc0\x80\n'; } >overlong
hell overlong 0 2 2
{ cat text && printf 'cut \xe8\xaa'; } >cut_off
hell cut_off 0 2 2
{ printf '\xef\xbb\xbf' && cat text; } >mark
hell mark 0 0 0
printf '\xef\xbb\xbf' >mark_alone
hell mark_alone 2 2 2
iconv -t UTF-16 text >wide
hell wide 0 2 2
sed 's/$/\r/' text >crlf
hell crlf 0 0 0
tr '\n' '\r' <text >cr
hell cr 0 0 0
gzip -c text >gzipped
hell gzipped 0 2 2
{ printf '%%PDF-1.4\n' && cat text; } >pdf
hell pdf 0 2 2
head -c 70000 /dev/zero | tr '\0' x >word # longer than a word may be
hell word 0 0 2
head -c 20000 /dev/urandom >noise
hell noise 0 2 2
mkfifo fifo
hell fifo 2 2 2
ln -s loop loop
hell loop 2 2 2
mkdir folder && ln -s . folder/self && ln -s ../folder folder/up && cp text folder/t
hell folder '0 2' '0 2' '0 2'
hell nothing 2 2 2
hell /dev/null 2 2 2
hell /dev/zero 2 2 2
hell . 2 2 2

# ---------------------------------------------------- while it is being read
# The text is large enough to be met while it is counted or read; the moment is random.
make_text 3000000 >large
for ((round = 1; round <= rounds; ++round)); do
  cp large moving
  rm -f no.h5 no.jsonl
  (
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    case $((round % 3)) in
    0) : >moving ;;
    1) head -c 1000000 large >part && cat part >moving ;;
    *) tr a-z A-Z <large >upper && cat upper >moving ;;
    esac
  ) &
  check "a text that changes, round $round" stands '0 1 2' "$unroll" train moving "${tiny[@]}" --level char -o no.h5
  wait
  check "and is scored, round $round" stands '0 1 2' "$unroll" eval char.h5 moving
done

if [ $all = yes ]; then
  if [ "$(df -k --output=avail . | tail -n 1)" -gt 4000000 ]; then
    limit=1500
    head -c 1000000000 /dev/zero | tr '\0' x >line
    hell line 0 0 2
    rm -f line
  else
    echo "no room for a line of 1 GB: left out"
  fi
fi
echo "$results results, $errors errors of one line"
finish
