# Wrong input of every kind: one line that says what, where and what would be legal; exit status 2;
# nothing written; and under mpirun one line in all, and every rank gone.
. "$(dirname "$0")/lib.sh"

mkdir inputs # what the commands read, and where they would write
cd inputs || exit 1

snapshot() { find . -printf '%p %y %s %m\n' | sort && find . -type f -readable -exec cksum {} + | sort; }

# refused PART... -- COMMAND...: as above, and the line has every part. $ranks: under mpirun.
ranks=
refused() {
  local parts=() part status line
  while [ "$1" != -- ]; do
    parts+=("$1")
    shift
  done
  shift
  checks=$((checks + 1))
  snapshot >../before
  # shellcheck disable=SC2086 # the launcher is words, or none
  timeout -k 5 60 ${ranks:+"${mpirun_quiet[@]}" -n $ranks} "$unroll" "$@" </dev/null >../out 2>../err
  status=$?
  snapshot >../after

  grep -v '^unroll: warning: ' ../err >../lines # advice on threads and cores
  line=$(cat ../lines)
  [ $status = 2 ] || fail "$*: exit status $status: $line"
  [ "$(wc -l <../lines)" = 1 ] || fail "$*: not one line: $line"
  [[ $line == "unroll: error: "* ]] || fail "$*: no message: $line"
  for part in "${parts[@]}"; do
    [[ $line == *"$part"* ]] || fail "$*: says nothing of \"$part\": $line"
  done
  [ ! -s ../out ] || fail "$*: wrote to standard output: $(head -3 ../out)"
  cmp -s ../before ../after || fail "$*: changed files: $(diff ../before ../after)"
}

accepted() {
  # shellcheck disable=SC2086
  timeout -k 5 60 ${ranks:+"${mpirun_quiet[@]}" -n $ranks} "$unroll" "$@" </dev/null >../out 2>../err
  local status=$?
  check "$*: is legal, but: $(tail -1 ../err)" [ $status = 0 ]
}

make_text 20000 >text
make_text 3000 >other
: >empty
mkdir empty_folder folder
: >empty_folder/.hidden
make_text 1000 >folder/a
"$unroll" train text "${tiny[@]}" -o good.h5 >/dev/null 2>&1 || fail "no run file to damage"
"$unroll" train text "${tiny[@]}" --letters -o letters.h5 >/dev/null 2>&1 || fail "no model of letters"
rm -f ./*.best.h5 ./*.jsonl

# ------------------------------------------------------------ command line
refused '"trian"' --help -- trian text
refused --hiden 'nearest is --hidden' -- train text --hiden 12
refused --hid 'nearest is --hidden' -- train text --hid 12
refused --learning-rate 'here it is --lr' -- train text --learning-rate 1e-3
refused --batch_size 'here it is --batch' -- train text --batch_size 32
refused --gpu '--help lists the options' -- train text --gpu 0.5
refused --prompt 'here it is --prime' -- sample good.h5 --prompt the
refused --hidden 'needs a value' -- train text --hidden
refused --letters 'takes no value' -- train text --letters=yes
refused -x -- train text -x
refused --hidden twice -- train text --hidden 12 --hidden 12
refused --level 'byte|char|word' -- train text --level letter
refused --checkpoint-every 90s 30m -- train text --checkpoint-every soon
refused --wait-limit 90s 15m -- train text --wait-limit 500
refused --valid-every 'a time is not' -- train text --valid-every 10m
refused --hidden 12x '1 to 65536' -- train text --hidden 12x
refused --lr 'above 0' -- train text --lr nan
refused --lr 'above 0' -- train text --lr inf
refused 'unroll train' -- train
refused 'too few' 'unroll eval' -- eval good.h5
refused too_much 'unroll sample' -- sample good.h5 too_much
refused --shards 3 --batch 64 'is 2' -- train text --shards 3 --batch 64
refused --valid --valid-fraction -- train text --valid other --valid-fraction 0.1
refused --resume --overwrite -- train text --resume --overwrite
refused none.h5 'no such run file' 'without a text' -- train --resume -o none.h5
refused --early-stop --valid -- train text --early-stop 2 --valid-fraction 0
refused --lr-min --lr -- train text --lr 0.1 --lr-min 0.2
refused --out 'file name' -- train text -o ''
refused --steps '--bptt truncated or randomized' 'is full' -- train text --bptt full --steps 10
refused --stride '--bptt truncated' 'is randomized' -- train text --bptt randomized --stride 4
refused --momentum '--optimizer momentum' 'is adam' -- train text --momentum 0.9
refused --lowercase --letters -- train text --letters --lowercase
refused --diagnose-every '--sequences stream' -- train text --bptt full --sequences line --diagnose-every 5
refused '--stride 9' '--steps, here 8' -- train text --steps 8 --stride 9
refused --stride '--partition sequential' -- train text --stride 8 --partition random
refused '--sequences line' '--bptt full' -- train text --sequences line
refused --letters '--sequences stream' -- train text --sequences paragraph --bptt full --letters
refused --partition '--sequences line' -- train text --bptt full --partition random
refused --partition '--bptt truncated' -- train text --bptt randomized --partition random
refused --overwrite --out -- gradflow good.h5 text --overwrite
refused 'nothing to write' --safetensors --onnx --csv -- export good.h5
refused --csv 'run file itself' -- export good.h5 --csv ./good.h5 --overwrite
refused --csv 'exists already' --overwrite -- export good.h5 --csv text
refused --safetensors --csv 'two names' -- export good.h5 --csv new --safetensors new
refused none_such 'No such file' -- export good.h5 --csv none_such/a.csv --safetensors a.safetensors
refused folder 'is a folder' -- export good.h5 --safetensors folder --overwrite
refused --overwrite --csv -- export good.h5 --overwrite
refused --per-line '--streams 1' -- eval --per-line --streams 2 good.h5 text

# No number of any command may be negative, and the range is named.
for command in $("$unroll" --help | sed -n 's/^  unroll \([a-z]*\)  .*/\1/p'); do
  for option in $("$unroll" "$command" --help | sed -n 's/^ .* --\([a-z0-9-]*\) [NX] .*/\1/p;s/^ .* --\([a-z0-9-]*\) [NX]$/\1/p'); do
    refused "--$option" -1 legal -- "$command" "--$option" -1
  done
done
[ "$checks" -gt 40 ] || fail "the options with a number were not found in the help"
refused --hidden '1 to 65536' -- train text --hidden 65537
refused --valid-fraction '0 to 0.9' -- train text --valid-fraction 0.95

# -------------------------------------------------------------------- text
for file in none_such none/such; do
  refused $file 'No such file' -- train $file
  refused $file 'No such file' -- train text $file
  refused $file 'No such file' -- train text --valid $file
  refused $file 'No such file' -- eval good.h5 $file
done
refused text/ 'Not a directory' -- train text/
refused empty 'no byte' -- train empty
refused empty 'no byte' -- train text --valid empty
refused empty 'no byte' -- eval good.h5 empty
refused empty_folder 'no file' -- train empty_folder
mkfifo pipe
refused pipe pipe -- train pipe
rm pipe
ln -s loop loop
refused loop 'symbolic links' -- train loop
rm loop
make_text 100 >secret
chmod 000 secret
if [ ! -r secret ]; then
  refused secret 'ermission denied' -- train secret
  refused secret 'ermission denied' -- train text secret
fi
rm -f secret

# Malformed UTF-8: file and byte offset, in the file and not in the text as a whole.
malformed() {
  printf '%b' "$1" >bad
  for level in char word; do
    refused bad "byte $2 " '--level byte' -- train --level $level --valid-fraction 0 bad
    refused bad "byte $2 " -- train --level $level --valid-fraction 0 folder bad text
    refused bad "byte $2 " -- train --level $level text --valid bad
  done
  refused bad "byte $2 " -- eval good.h5 bad
}
malformed 'abc\x80def' 3
malformed 'abcd\xc3' 4                      # the file ends in the middle of a character
malformed 'a\xc0\xaf' 1                     # overlong
malformed 'ab\xed\xa0\x80' 2                # a surrogate
malformed '\xf4\x90\x80\x80' 0              # above U+10FFFF
malformed 'gr\xc3\xbc\xc3\x9fe \xe2\x82' 8  # good characters before
accepted train --level byte text bad "${tiny[@]}" -o ../bytes.h5

printf '123 456 7890 !?' >numbers
refused numbers 'no word' -- train --level word --letters --valid-fraction 0 numbers

# Too little text: what is named as the largest legal value is legal, and one more is not.
head -c 201 text >short
ten=(--steps 10 --valid-fraction 0 --hidden 4 --max-steps 1)
refused 'too few' '--batch is 20' '--steps is 2 ' -- train short "${ten[@]}" --batch 100
accepted train short "${ten[@]}" --batch 20 --out ../short.h5 --overwrite
refused 'too few' '--batch is 20' -- train short "${ten[@]}" --batch 21
accepted train short --steps 2 --batch 100 --valid-fraction 0 --hidden 4 --max-steps 1 --out ../short.h5 --overwrite
refused 'too few' -- train short --steps 3 --batch 100 --valid-fraction 0
ranks=2
refused 'too few' '--batch is 20' -- train short "${ten[@]}" --batch 22
accepted train short "${ten[@]}" --batch 20 --out ../short.h5 --overwrite
ranks=
head -c 3 text >three
refused 'too few' '--steps is 2' -- train three --steps 4 --valid-fraction 0
refused validation 'too few' -- train text "${tiny[@]}" --valid three
head -c 1 text >one
refused 'too few' 2 -- train one --valid-fraction 0
refused token -- eval good.h5 one
refused token 'too few for --streams 3000' 'largest legal --streams is 2999' -- eval --streams 3000 good.h5 other

# Too few lines: the same.
printf 'one\ntwo\n\nthree\nfour' >lines
printf 'a\n\nb\n\nc\n\nd\n' >paragraphs
lines=(--bptt full --sequences line --valid-fraction 0 --hidden 4 --max-steps 1)
refused training '5 sequences' '--batch is 5' -- train lines "${lines[@]}" --batch 6
accepted train lines "${lines[@]}" --batch 5 --out ../lines.h5
refused training '2 sequences' '--batch is 2' -- train lines --bptt full --sequences paragraph --valid-fraction 0 --batch 64
refused validation '2 sequences' '--batch is 2' -- train paragraphs --valid lines --bptt full --sequences paragraph --batch 4
tr '\n' ' ' <lines >no_lines
refused training 'no line end' -- train no_lines "${lines[@]}" --batch 1
ranks=2
refused training '5 sequences' '--batch is 4' -- train lines "${lines[@]}" --batch 6
refused training 'no line end' -- train no_lines "${lines[@]}" --batch 2
ranks=
rm lines no_lines paragraphs

# Ranks that cannot share the shards: the numbers that can are named.
ranks=3
refused '3 ranks' '16 shards' '1, 2, 4, 8, 16' -- train text
ranks=

# ---------------------------------------------------------------- run file
# The commands that read one, each with the word "text" where it takes a text too. What watch follows are logs, also of
# runs that have not begun.
readers=$("$unroll" --help | sed -n '/^  unroll watch /d;s/^  unroll \([a-z]*\)  *RUN\(\.\.\.\)\{0,1\}  .*/\1/p;s/^  unroll \([a-z]*\)  *RUN TEXT.*/\1 text/p')
check "commands that read a run file" [ "$(wc -l <<<"$readers")" -ge 3 ]
commands_on() { # FILE PART...: every command that reads a run file refuses this one
  local file=$1 command text
  shift
  while read -r command text; do
    refused "$file" "$@" -- "$command" "$file" ${text:+"$text"}
  done <<<"$readers"
}
commands_on none_such.h5 'No such file'
commands_on folder irectory
commands_on text 'not an HDF5 file'
commands_on empty HDF5
refused text 'not an HDF5 file' -- train text -o text --resume
bytes=$(stat -c %s good.h5)
for size in 4 40 100 $((bytes / 2)) $((bytes - 1)); do
  head -c "$size" good.h5 >cut.h5
  commands_on cut.h5
  refused cut.h5 -- train text -o cut.h5 --resume
done
# A flipped bit anywhere is known before HDF5 sees the file; so is a file behind which something stands.
for at in 9 48 $((bytes / 3)) $((bytes / 2)) $((bytes - 150)) $((bytes - 60)); do
  cp good.h5 flipped.h5
  byte=$(od -An -tu1 -j "$at" -N 1 good.h5)
  printf "\\x$(printf %x $((byte ^ 64)))" | dd of=flipped.h5 bs=1 seek="$at" conv=notrunc status=none
  refused flipped.h5 'is damaged' SHA-256 -- info flipped.h5
done
commands_on flipped.h5 'is damaged' SHA-256
refused flipped.h5 'is damaged' -- train text -o flipped.h5 --resume
(cat good.h5 && echo) >flipped.h5
refused flipped.h5 'is damaged' -- info flipped.h5
rm flipped.h5
check "the digest is that of the bytes before it" [ "$(tail -c 95 good.h5 | cut -c 1-64)" = \
  "$(head -c -117 good.h5 | sha256sum | cut -c 1-64)" ]
# A file of an older version has none: it is read apart first.
head -c -117 good.h5 >bare.h5
accepted info bare.h5
ranks=2
accepted eval bare.h5 other
ranks=
check "every byte is checked: status 0" quiet 0 "$unroll" info --verify good.h5
check "with the SHA-256" grep -q "SHA-256 $(head -c -117 good.h5 | sha256sum | cut -c 1-64)\$" out
check "no dataset is without a checksum" grep -q '^datasets: [0-9]* with a checksum, which holds; 0 without one$' out
check "not all can be checked: status 1" quiet 1 "$unroll" info --verify bare.h5
refused cut.h5 -- info --verify cut.h5
refused --finished --verify --json -- info --verify --json good.h5
rm -f out err bare.h5 cut.h5
if python=$(find_python); then
  "$python" - <<'PY'
import h5py, shutil
with h5py.File("foreign.h5", "w") as file:
    file["weights"] = [1.0, 2.0]
shutil.copy("good.h5", "newer.h5")
with h5py.File("newer.h5", "r+") as file:
    file.attrs.modify("format_version", 1000)
shutil.copy("good.h5", "lacking.h5")
with h5py.File("lacking.h5", "r+") as file:
    del file["weights/layer0/W_hh"]

# What leads out of the file, or is larger than it: the first column of a table, and weights.
def crafted(name, path, make):
    shutil.copy("good.h5", name)
    with h5py.File(name, "r+") as file:
        old = file[path][...]
        del file[path]
        make(file, path, old)

def virtual(file, path, old):
    layout = h5py.VirtualLayout(shape=old.shape, dtype=old.dtype)
    layout[...] = h5py.VirtualSource("virtual.h5", path, shape=old.shape)
    file.create_virtual_dataset(path, layout)

def external(file, path, old):
    file.create_dataset(path, shape=old.shape, dtype=old.dtype, external=[("/etc/passwd", 0, old.nbytes)])

def link(file, path, old):
    file[path] = h5py.ExternalLink("good.h5", path)

def lzf(file, path, old):
    file.create_dataset(path, data=old, compression="lzf")

def deflate(file, path, old):
    file.create_dataset(path, data=old, compression="gzip", shuffle=True, fletcher32=True)

def hollow(file, path, old):
    file.create_dataset(path, shape=old.shape, dtype=old.dtype, fletcher32=True)

def absurd(file, path, old):
    file.create_dataset(path, shape=(10**8,), dtype=old.dtype, chunks=(1000,), compression="gzip")
    file[path][:1] = 1

crafted("virtual.h5", "metrics/train/step", virtual)
crafted("external.h5", "weights/output/W_qh", external)
crafted("link.h5", "weights/output/W_qh", link)
crafted("lzf.h5", "weights/output/b_q", lzf)
crafted("deflate.h5", "weights/output/b_q", deflate)
crafted("hollow.h5", "weights/output/b_q", hollow)
crafted("absurd.h5", "metrics/train/step", absurd)

# Damage, one bit in the middle of a part, in the file and where it has no digest: HDF5's checksum tells, of strings their SHA-256.
with h5py.File("good.h5") as file:
    start = {}
    for path in ("weights/layer0/W_hh", "optimizer/second/output/W_qh", "metrics/train/loss", "vocab/count", "state/h"):
        start[path] = file[path].id.get_chunk_info(0).byte_offset + file[path].nbytes // 2
    hash = file["provenance/sha256"][0]
good = open("good.h5", "rb").read()
start["provenance/sha256"] = good.index(hash) + 20
start["config"] = good.index(b"forget_bias")
with open("../damaged", "w") as list:
    for k, (path, at) in enumerate(start.items()):
        damaged = bytearray(good)
        damaged[at] ^= 1
        open(f"damaged{k}.h5", "wb").write(damaged)
        open(f"bare{k}.h5", "wb").write(damaged[:-117])
        print(k, "/" + path, file=list)
shutil.copy("good.h5", "renamed.h5")
with h5py.File("renamed.h5", "r+") as file:
    file["vocab/token"][1] = "!"
shutil.copy("renamed.h5", "renamed_well.h5")
with h5py.File("renamed_well.h5", "r+") as file:
    del file["vocab/token"].attrs["sha256"]
    file["weights/output/b_q"][...] *= 2
PY
  while read -r k part; do
    refused damaged$k.h5 'is damaged' SHA-256 "$part" -- info damaged$k.h5
    refused bare$k.h5 "$part" -- info bare$k.h5
    refused bare$k.h5 "$part" -- train text -o bare$k.h5 --resume
  done <../damaged
  check "parts were damaged" [ "$(wc -l <../damaged)" = 7 ]
  refused damaged1.h5 /optimizer/second/output/W_qh -- info --verify damaged1.h5
  refused bare1.h5 'damaged: /optimizer/second/output/W_qh' -- info --verify bare1.h5
  commands_on hollow.h5 '/weights/output/b_q is damaged' 'missing'
  check "what was edited elsewhere is not proven" quiet 1 "$unroll" info --verify renamed_well.h5
  check "and says so" grep -q 'has no SHA-256 of the whole' err
  commands_on bare0.h5 '/weights/layer0/W_hh: ' checksum
  refused renamed.h5 '/vocab/token is damaged' 'attribute sha256' -- eval renamed.h5 text
  accepted eval renamed_well.h5 text
  commands_on virtual.h5 '/metrics/train/step is a virtual dataset'
  commands_on external.h5 '/weights/output/W_qh keeps its values in another file'
  commands_on link.h5 '/weights/output/W_qh is a link to another file'
  commands_on lzf.h5 '/weights/output/b_q has filter 32000' 'legal are'
  commands_on absurd.h5 '/metrics/train/step declares 800000000 bytes'
  accepted info deflate.h5
  commands_on foreign.h5 'not a run file'
  commands_on newer.h5 newer
  commands_on lacking.h5 W_hh
  refused foreign.h5 'not a run file' -- train text -o foreign.h5 --resume
  refused newer.h5 newer -- train text -o newer.h5 --resume
else
  echo "not checked: foreign and newer files (no h5py)"
fi
refused 'line end' -- eval --per-line letters.h5 text
refused byte 0 -- sample --prime $'\x80' good.h5

# ------------------------------------------------------------------ output
# It is found at the start: before the text is looked at, which is not even there.
refused none_such 'No such file' -- train text -o none_such/run.h5
refused run.h5 'Not a directory' -- train no_text -o text/run.h5
refused folder 'is a folder' -- train no_text -o folder
refused good.h5 --resume --overwrite -- train no_text -o good.h5
mkfifo pipe
refused pipe 'regular file' -- train no_text -o pipe --overwrite
rm pipe
mkdir locked
chmod 555 locked
if [ ! -w locked ]; then
  refused locked 'ermission denied' -- train no_text -o locked/run.h5
elif [ -d /proc/self ]; then # root may write anywhere but where nobody can
  refused /proc -- train no_text -o /proc/run.h5
fi
rmdir locked

# ------------------------------------------------------------------ resume
"$unroll" train text "${tiny[@]}" --max-steps 3 -o half.h5 >/dev/null 2>&1 || fail "no half run"
rm -f half.best.h5 half.jsonl
cp text was
refused --hidden 16 8 -- train text -o half.h5 --resume --hidden 16
refused --seed 2 1 -- train text -o half.h5 --resume --seed 2
refused --momentum '--optimizer momentum' 'is adam' -- train text -o half.h5 --resume --momentum 0.9
refused --batch 8 4 -- train text -o half.h5 --resume --batch 8
refused --bptt full truncated -- train text -o half.h5 --resume --bptt full
refused --sequences line stream -- train text -o half.h5 --resume --sequences line
printf x >>text
refused text half.h5 -- train text -o half.h5 --resume
refused text half.h5 -- train -o half.h5 --resume
sed 's/tree/TREE/' was >text # of the same length
refused text half.h5 -- train -o half.h5 --resume
cp was text
refused half.h5 'run: 1' 'call: 2' -- train text other -o half.h5 --resume
mv text away
refused text 'No such file' -- train -o half.h5 --resume
mv away text
accepted train -o half.h5 --resume
rm -f half.best.h5 half.jsonl

# ----------------------------------------- several ranks: one line, all leave
printf 'abc\x80def' >bad
cp good.h5 half.h5
head -c 1000 good.h5 >cut.h5
ranks=2
refused --hiden -- train text --hiden 12
refused none_such -- train none_such
refused none_such -- train --dry-run none_such
refused empty -- train empty
refused bad 'byte 3 ' -- train folder bad --valid-fraction 0
refused bad 'byte 3 ' -- train text --valid bad
refused 'too few' -- train short
refused validation 'too few' -- train text "${tiny[@]}" --valid three
refused good.h5 --resume -- train text -o good.h5
refused none_such -- train text -o none_such/run.h5
refused cut.h5 -- train text -o cut.h5 --resume
refused --hidden -- train text -o half.h5 --resume --hidden 16
refused other half.h5 -- train other -o half.h5 --resume
commands_on cut.h5
commands_on none_such.h5
refused bad 'byte 3 ' -- eval good.h5 bad
refused 'line end' -- eval --per-line letters.h5 text
# Malformed text that only the last rank reads.
{
  make_text 3000000
  printf '\xff'
} >long
ranks=4
refused none_such 'No such file' -- train none_such
refused long 'byte 3000000 ' -- train long
refused long 'byte 3000000 ' -- eval --streams 4 good.h5 long

finish
