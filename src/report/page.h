#ifndef REPORT_PAGE_H
#define REPORT_PAGE_H

/*
 * The page: page.html with its style, its script and the library that draws (vendor/), which the build has put together
 * into one text (embed.cmake), and the data in the midst of it. It asks for nothing else: a content security policy
 * forbids it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/status.h>

/** Is the file of that name a page of this kind, or empty? */
bool page_is_one(const char *path);

/**
 * Write the page; what was there before stays whatever fails.
 *
 * @param[in]  data   borrowed
 * @param[out] bytes  of the page
 *
 * @return UNROLL_OK, UNROLL_ERR_IO or UNROLL_ERR_MEMORY
 */
struct json_t;
unroll_status page_write(const char *path, const struct json_t *data, size_t *bytes);

#endif
