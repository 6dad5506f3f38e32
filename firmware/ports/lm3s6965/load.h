/* A demonstration load: no chip, but cells in memory that switch beyond a threshold, as plain as
 * can be. It stands where a real port has converters and switches. */
#ifndef LOAD_H
#define LOAD_H

#include <stdint.h>

enum { LOAD_ROWS = 8, LOAD_COLUMNS = 8, LOAD_CELLS = LOAD_ROWS * LOAD_COLUMNS };

void load_begin(void);
/* What these levels (V) do to a cell, however long they last. */
void load_pulse(uint32_t cell, double bl_v, double sl_v, double gate_v);
/* The current (A) from bit line to source line. */
double load_current_a(uint32_t cell, double bl_v, double sl_v, double gate_v);

#endif
