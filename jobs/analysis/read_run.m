## run = read_run (FILE)
## run = read_run (FILE, SAFETENSORS)
##
## A run file as a struct: run.config.hidden, run.metrics.valid.loss, run.weights.layer0.W_hh (H x H, as in the
## equations), run.vocab.token (a cell array of strings), and so on. Needs octave-netcdf (on Debian: apt-get install
## octave-netcdf): Octave's own load knows neither attributes nor strings of variable length.
##
## octave-netcdf cannot read such strings either: tokens that are characters or bytes are made from their codes; names of
## words come from a file that `unroll export RUN --safetensors SAFETENSORS` wrote.
function run = read_run (file, safetensors = "")
  pkg load netcdf
  id = netcdf_open (file, "NC_NOWRITE");
  run = read_group (id);
  netcdf_close (id);
  if (! isempty (safetensors))
    run.vocab.token = read_tokens (safetensors);
  else
    run.vocab.token = arrayfun (@(code) spell (code, run.config.level), run.vocab.code, "UniformOutput", false);
  endif
endfunction

## Attributes and datasets of a group, and the groups in it.
function out = read_group (id)
  global_ = netcdf_getConstant ("NC_GLOBAL");
  out = struct ();
  [~, variables, attributes] = netcdf_inq (id);
  for k = 0:attributes-1
    name = netcdf_inqAttName (id, global_, k);
    value = netcdf_getAtt (id, global_, name);
    if (ischar (value))
      value = regexprep (value, "\\0+$", "");
    endif
    out.(name) = value;
  endfor
  for k = 0:variables-1
    [name, type] = netcdf_inqVar (id, k);
    if (type != 12) # NC_STRING
      value = netcdf_getVar (id, k);
      out.(name) = permute (value, ndims (value):-1:1); # rows first, as in the file
      if (isvector (value))
        out.(name) = value(:);
      endif
    endif
  endfor
  for group = netcdf_inqGrps (id)
    out.(netcdf_inqGrpName (group)) = read_group (group);
  endfor
endfunction

## A code point, or byte, as Octave's strings have it: UTF-8.
function text = spell (code, level)
  code = double (code);
  if (code < 0)
    text = "<unk>";
  elseif (code < 128 || strcmp (level, "byte"))
    text = char (code);
  else
    rest = [];
    limit = 64; # of what the first byte can still hold
    while (code >= limit)
      rest = [128 + mod(code, 64), rest];
      code = floor (code / 64);
      limit = 32 / 2 ^ (numel (rest) - 1);
    endwhile
    text = char ([256 - 2 * limit + code, rest]);
  endif
endfunction

## The header of a safetensors file is JSON behind its length.
function token = read_tokens (file)
  f = fopen (file, "r");
  n = fread (f, 1, "uint64=>double", 0, "ieee-le");
  header = jsondecode (fread (f, [1, n], "char=>char"), "makeValidName", false);
  fclose (f);
  token = jsondecode (header.("__metadata__").token);
endfunction
