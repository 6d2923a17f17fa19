# Put the page together and make a C source of it:
#
#   cmake -DFOLDER=src/report -DOUT=page_text.c -P embed.cmake
#
# page.html names its parts as {{file}}; {{data}} is what the program puts in.
file(READ ${FOLDER}/page.html page)
foreach(part IN ITEMS vendor/uplot/uPlot.min.css page.css vendor/uplot/uPlot.iife.min.js page.js)
  file(READ ${FOLDER}/${part} text)
  string(REPLACE "{{${part}}}" "${text}" page "${page}")
endforeach()
string(FIND "${page}" "{{data}}" at)
string(LENGTH "{{data}}" length)
string(SUBSTRING "${page}" 0 ${at} before)
math(EXPR at "${at} + ${length}")
string(SUBSTRING "${page}" ${at} -1 behind)

set(source "/* Made by embed.cmake of src/report. */\n")
foreach(part IN ITEMS before behind)
  file(WRITE ${OUT}.part "${${part}}")
  file(READ ${OUT}.part bytes HEX)
  file(REMOVE ${OUT}.part)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes "${bytes}")
  string(APPEND source "extern const unsigned char page_${part}[];\nextern const unsigned long page_${part}_bytes;\n"
    "const unsigned char page_${part}[] = {\n${bytes}\n};\n"
    "const unsigned long page_${part}_bytes = sizeof page_${part};\n")
endforeach()
file(WRITE ${OUT} "${source}")
