# What of a text is text: reserved words, line ends, files that are no text, the run's own files, texts that moved.
. "$(dirname "$0")/lib.sh"

make_text 20000 >text
words=("${tiny[@]}" --level word)

# ---------------------------------------------------------- reserved words
sed 's/tree/<eos>/; s/gate/<unk>/' text >reserved
count_word() { tr ' ' '\n' <"$1" | grep -cFx -- "$2"; }
unk=$(count_word reserved '<unk>')
eos=$(count_word reserved '<eos>')
check "reserved words are read" quiet 0 "$unroll" train reserved "${words[@]}" -o reserved.h5
check "words that are <unk> are said" grep -q "^text: $unk of its words are <unk>: unknown tokens" err
check "words that are <eos> are said" grep -q "^text: $eos of its words are <eos>: a word" err
check "the word <eos> ends no line" quiet 0 "$unroll" eval --per-line reserved.h5 reserved
check "a row for each line" cmp <(tail -n +2 out | cut -f 1) <(seq "$(grep -c '' reserved)")
check "without them nothing is said" quiet 0 "$unroll" train text "${words[@]}" -o words.h5
check_not "of <unk> or <eos>" grep -q 'its words are' err

# ---------------------------------------------------- the run's own files
# A folder that is the text and gets the run: what the run writes there never becomes text.
mkdir folder
cp text folder/a
make_text 3000 >folder/run.txt
make_text 3000 >folder/run.12x.h5.txt
echo 'no text' >folder/.hidden
check "a run in its text" quiet 0 env -C folder "$unroll" train . "${tiny[@]}" --keep 2 --checkpoint-every 100 --valid-every 100 --max-steps 400 \
  -o run.h5
tokens=$(sed -n 's/^text: \([0-9]*\) tokens.*/\1/p' err)
: >folder/run.h5.4711.tmp
: >folder/run.best.h5.4711.tmp
check "there are files of the run" [ -s folder/run.best.h5 -a -s folder/run.1.h5 -a -s folder/run.2.h5 -a -s folder/run.jsonl ]
check "a run in its text goes on" quiet 0 "$unroll" train folder --resume -o folder/run.h5 --max-steps 500
check "with the text it had" grep -q "^text: $tokens tokens" err
check "all of whose files are named" grep -q "folder/a, which was ./a, has" err
check "named by itself it is met" quiet 2 env -C folder "$unroll" train ./a ./run.jsonl "${tiny[@]}" --max-steps 1 -o run.h5 --overwrite
check "and named" grep -q './run.jsonl: is read, and the run would write it: the log' err
check "the files of another run are met" quiet 2 "$unroll" train folder "${tiny[@]}" --max-steps 1 -o folder/other.h5
check "and named" grep -q 'folder/run[^ ]*: is an HDF5 file' err

# -------------------------------------------------------- texts that moved
make_text 5000 >valid
check "a run" quiet 0 "$unroll" train text --valid valid "${tiny[@]}" --max-steps 5 -o moved.h5
cp moved.h5 back.h5
mkdir elsewhere there
check "relative names from another folder" quiet 0 env -C elsewhere "$unroll" train --resume -o ../moved.h5 --max-steps 6
cp text there/t
mv valid there/v
check "the validation text lies elsewhere" quiet 0 "$unroll" train there/t --resume --valid there/v -o moved.h5 --max-steps 7
check "which is told" grep -q '^text: there/v, which was .*valid, has the same content' err
check "and noted" bash -c "'$unroll' info moved.h5 | grep -q there/v"
check "and found there without names" quiet 0 "$unroll" train --resume -o moved.h5 --max-steps 8
sed -i 's/tree/TREE/' there/v
check "another content is refused" quiet 2 "$unroll" train there/t --resume --valid there/v -o moved.h5
check "in a line that names it" grep -q 'error: there/v: not the text' err
mkdir both
cp text both/a
sed 's/TREE/tree/' there/v >both/b
check "another share for validation is refused" quiet 2 "$unroll" train both --resume --valid '' -o back.h5
check "in a line that says what there was" grep -q -- '--valid "": the run to resume has valid' err
check "validation that was not there is refused" quiet 2 "$unroll" train text --resume --valid there/v -o words.h5
check "in a line that says so" grep -q -- '--valid "there/v": the run to resume has none' err

# ------------------------------------------------------ names that are no UTF-8
if python=$(find_python); then
  odd=$'caf\xe9 \\xe9 \xc3\xa9'
  cp text "$odd"
  check "a name that is no UTF-8" quiet 0 "$unroll" train "$odd" --valid "$odd" "${tiny[@]}" --checkpoint-every 1 -o odd.h5
  check "is read by other tools" "$python" - <<'PYTHON'
import h5py
name = "caf\\xe9 \\x5cxe9 \u00e9"
with h5py.File("odd.h5", "r") as run:
    assert list(run["provenance/file"].asstr()) == [name, name], list(run["provenance/file"])
    assert name in run.attrs["history"].decode() and name == run["config"].attrs["valid"].decode()
PYTHON
  check "and found on resume" quiet 0 "$unroll" train --resume --change --epochs 2 -o odd.h5 "$odd"
  check_not "under its own name: $(cat err)" grep -q 'has the same content' err
fi

check "standard input" quiet 2 "$unroll" train - "${tiny[@]}" -o no.h5
check "is refused with the reason: $(cat err)" grep -q '^unroll: error: -: standard input is no text: .* must be a file' err

# ------------------------------------------------------ what is plainly no text
refused() { # FILE PART...: of a training, a validation and a scoring
  local file=$1 part
  shift
  check "$file as text" quiet 2 "$unroll" train "$file" "${tiny[@]}" -o no.h5
  for part in "$@" "$file" 'a model of --level byte reads anything'; do
    check "$file: a line that says $part: $(cat err)" grep -qF -- "$part" err
  done
  check "$file for validation" quiet 2 "$unroll" train text --valid "$file" "${tiny[@]}" -o no.h5
  check "$file to be scored" quiet 2 "$unroll" eval words.h5 "$file"
  check "$file: one line" [ "$(wc -l <err)" = 1 ]
}
printf '\x1f\x8b\x08\0\0\0' >text.gz
refused text.gz gzip 'gzip -dc'
printf 'BZh91AY&SY\0\0' >text.bz2
refused text.bz2 bzip2
printf 'PK\x03\x04\0\0' >text.zip
refused text.zip unzip
printf '%%PDF-1.4\n' >text.pdf
refused text.pdf pdftotext
refused words.h5 HDF5
for encoding in UTF-16 UTF-16BE; do
  iconv -f UTF-8 -t $encoding text >text.wide
  refused text.wide UTF-16 'iconv -f'
done
printf 'BZh is how a word of text may begin, and PK too\n' >looks
cat text >>looks
check "text that begins a little like it" quiet 0 "$unroll" train looks "${tiny[@]}" --max-steps 1 -o looks.h5
check "at level byte all is text" quiet 0 "$unroll" train text.wide "${tiny[@]}" --level byte --max-steps 1 -o wide.h5

# ------------------------------------------- marks, line ends, words without spaces
{ printf '\xef\xbb\xbf' && cat text; } >marked
check "a text" quiet 0 "$unroll" train text "${tiny[@]}" --max-steps 5 -o plain.h5
check "the same behind a byte order mark" quiet 0 "$unroll" train marked "${tiny[@]}" --max-steps 5 -o marked.h5
check "which is said once" [ "$(grep -c '^text: marked: the byte order mark' err)" = 1 ]
if python=$(find_python); then check "are the same run" same_run plain.h5 marked.h5; fi
tr '\n' '\r' <text >returns
check "lines that end in CR" quiet 0 "$unroll" train returns "${tiny[@]}" --max-steps 1 -o returns.h5
check "are told, with what to do" grep -q "^unroll: warning: returns: lines end in CR alone.* tr " err
tr -d ' \n' <text >dense
check "words without spaces" quiet 2 "$unroll" train dense "${words[@]}" -o no.h5
check "are told so: $(cat err)" grep -q 'one word of 1.*--level char' err
fold -w 60 dense >folded
check "lines without spaces" quiet 2 "$unroll" train folded --level word --batch 400 -o no.h5
check "are told so: $(cat err)" grep -q 'hardly any white space.*--level char' err
check "enough of them" quiet 0 "$unroll" train folded "${words[@]}" --max-steps 1 -o folded.h5
check "are told so" grep -q '^unroll: warning: .*no white space between words' err

# ------------------------------------------------------ what the model never saw
check "rare words" quiet 0 "$unroll" train text "${words[@]}" --min-count 100000 --max-steps 1 -o rare.h5
check "most of the text unknown is told" grep -q '^unroll: warning: .* of the training text are <unk>' err
tr 'a-z' 'A-Z' <text >upper
check "another text" quiet 0 "$unroll" eval words.h5 upper
check "most of it unknown is told" grep -q '^unroll: warning: .* of the text are <unk>' err
check "a known text" quiet 0 "$unroll" eval words.h5 text
check_not "is not" grep -q 'are <unk>' err
check "a prime" quiet 0 "$unroll" sample words.h5 --prime 'the Tree the Gate Tree' --length 1
check "its unseen words are told" grep -q 'warning: --prime: .*<unk>: Tree Gate$' err
check "a prime" quiet 0 "$unroll" sample plain.h5 --prime 'the Ä2 ÄX' --length 1
check "its unseen characters are told" grep -q 'warning: --prime: .*<unk>: Ä 2 X$' err
check "a prime" quiet 0 "$unroll" sample plain.h5 --prime 'the tree' --length 1
check "that was seen needs no word" [ ! -s err ]

# ------------------------------------------- copies on disks of their own
# Every rank in a folder of its own, with its own file under the same name.
mkdir disk0 disk1
cp text disk0/text
sed 's/tree/TREE/' text >disk1/text # of the same size
apart() { # STATUS COMMAND...: two ranks, each on its disk
  local expected=$1
  shift
  # shellcheck disable=SC2016 # the ranks' shells know their number
  quiet "$expected" "${mpirun_quiet[@]}" -n 2 sh -c \
    'cd "disk${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" && exec "$0" "$@"' "$unroll" "$@"
}
check "copies that differ" apart 2 train text "${tiny[@]}" --max-steps 2 -o copies.h5
check "are told in one line: $(cat err)" [ "$(grep -c '^unroll: error: text: a rank on .* reads another content' err)" = 1 ]
cp plain.h5 disk0/plain.h5
check "also to be scored" apart 2 eval plain.h5 text
head -c 100 text >disk1/text
check "copies of other sizes" apart 2 train text "${tiny[@]}" --max-steps 2 -o copies.h5
rm disk1/text
check "no copy" apart 2 train text "${tiny[@]}" --max-steps 2 -o copies.h5
cp text disk1/text
check "copies that are alike" apart 0 train text "${tiny[@]}" --max-steps 5 -o copies.h5
if [ -n "$python" ]; then check "are one text" same_run plain.h5 disk0/copies.h5; fi

finish
