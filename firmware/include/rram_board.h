/* The board side of docs/board-protocol.md, version 1, for any controller with a C99 compiler.
 *
 * A port fills `struct rb_hooks` (its hardware), `struct rb_envelope` (what that can do) and
 * `struct rb_limits` (what it never exceeds), calls `rb_boot` once and then, for ever,
 * `rb_receive` with what came over the link and `rb_poll`. Nothing is allocated, nothing waits
 * but the hooks, no function of an operating system is called.
 *
 * Volts are microvolts (uV), widths picoseconds (ps), everything measured is a double in A and s.
 */
#ifndef RRAM_BOARD_H
#define RRAM_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rram_config.h"

#define RB_FLOATING INT32_MIN /* a line that floats */
#define RB_NO_LEVEL INT32_MIN /* a body tied to its source, unselected word lines at 0 V */

enum rb_measure { RB_NOTHING, RB_CURRENT, RB_GATE, RB_BOTH };

enum rb_reading_status {
    RB_OK,
    RB_COMPLIANCE,
    RB_OVER_RANGE,
    RB_NOT_A_NUMBER,
    RB_STUCK,
    RB_UNKNOWN,
    RB_NOT_RUN
};

enum rb_scheme { RB_INHIBIT, RB_GROUNDED, RB_FLOAT_OTHERS, RB_HALF, RB_THIRD };

enum rb_ability {
    RB_PER_CELL = 1,
    RB_PROGRAM = 2,
    RB_MULTIPLY = 4,
    RB_GATE_CURRENT = 8,
    RB_HAS_COMPLIANCE = 16,
    RB_RECORDS = 32,
    RB_VIRTUAL_CLOCK = 64,
    RB_READ_BLOCKS = 128,
    RB_UNSIGNED_INPUTS = 256,
    RB_BODY = 512,
    RB_IDLE_GATES = 1024,
    RB_BOTH_CURRENTS = 2048
};

enum rb_cell { RB_1T1R, RB_1R, RB_1T1R_PMOS };

enum rb_line { RB_BL, RB_SL, RB_WL };

/* One step of one cell: levels for `width_ps`, and what is measured meanwhile. */
struct rb_shot {
    uint64_t width_ps;
    uint32_t cell;
    int32_t uv[3]; /* by enum rb_line; RB_FLOATING */
    int32_t body_uv, idle_uv; /* of all bodies, of unselected word lines; RB_NO_LEVEL */
    uint8_t measure;
    uint8_t is_pulse; /* |BL - SL| is above the read limit: count it before it goes out */
};

struct rb_reading {
    double current_a;
    double time_s; /* the board's clock at the end of the measurement */
    double gate_a; /* of RB_BOTH: the gate's current; infinite over range */
    uint8_t status; /* RB_OK, RB_COMPLIANCE or RB_OVER_RANGE; of RB_BOTH the bit line's */
};

struct rb_block {
    uint32_t tile, row, rows, column, columns;
};

/* Input vectors on the source lines of a block, its bit lines at virtual ground. */
struct rb_product {
    struct rb_block block;
    int32_t read_uv, wl_uv;
    int32_t body_uv, idle_uv; /* as in a shot; unselected are the rows beside the block */
    uint8_t input_bits;
    double full_scale_a; /* of the columns' converters */
};

/* What is the same for all shots of an operation. */
struct rb_setup {
    uint32_t number;
    uint8_t type; /* of its message */
    uint8_t scheme; /* for unselected bit lines */
    bool decides; /* the next shot depends on the last reading */
    double compliance_a; /* NaN: none */
    const uint8_t *cells; /* u32[n], little-endian; NULL where it has none */
    uint32_t n;
    size_t request_bytes;
};

/* What the hardware does. `port` is handed to all of them. A hook that does work returns how much
 * of it it has done, in order: fewer than asked, also 0, is asked again later; RB_BROKEN is a
 * fault of the hardware. Hooks marked (optional) may be NULL. */
#define RB_BROKEN (-1)

struct rb_hooks {
    void *port;

    /* Time: the board's clock (s; of the chip, never back) and a free running counter (ms). */
    double (*clock_s)(void *port);
    uint32_t (*ticks_ms)(void *port);

    /* Send these bytes to the host. */
    void (*send)(void *port, const uint8_t *bytes, size_t size);

    /* (optional) An operation begins: get ready for its scheme and compliance. It has ended, its
     * reply is so long: outputs have been off since `off`. */
    void (*begin)(void *port, const struct rb_setup *setup);
    void (*end)(void *port, size_t reply_bytes);

    /* All lines to 0 V and their switches open, bodies and unselected word lines without level. */
    void (*off)(void *port);
    /* Whether any switch is closed, read back from the hardware. */
    bool (*is_on)(void *port);

    /* One cell at a time. */
    void (*select)(void *port, uint32_t cell, uint8_t scheme); /* its switches alone */
    void (*drive)(void *port, enum rb_line line, int32_t uv); /* a level, or float */
    void (*hold)(void *port, uint64_t width_ps);
    /* Integrate the current (A) for a width: enum rb_measure, enum rb_reading_status. */
    uint8_t (*convert)(void *port, uint8_t measure, uint64_t width_ps, double *current_a);

    /* (optional) What not every board has; one that leaves a hook NULL, and has no `run`, lacks the
     * ability of the same name. A level of all bodies, or RB_NO_LEVEL: each tied to its source. */
    void (*body)(void *port, int32_t uv);
    /* (optional) A level of all word lines but the selected one, or RB_NO_LEVEL: 0 V. */
    void (*idle_gates)(void *port, int32_t uv);
    /* (optional) As `convert`, of bit line and gate in one pulse. */
    uint8_t (*convert_both)(void *port, uint64_t width_ps, double *current_a, double *gate_a);

    /* (optional) All of that for many shots at once, the lines of a cell raised together behind its
     * gate. It calls `rb_reach` for each before it goes out. Readings only of shots that measure, one
     * after the other. */
    int32_t (*run)(void *port, const struct rb_shot *shots, uint32_t n, struct rb_reading *readings);

    /* (optional) Vectors through column amplifiers: codes[vectors x rows] in, out clipped ADC codes
     * [vectors x columns]; adds to *saturated. Else a product is a sum of single conversions. */
    int32_t (*multiply)(void *port, const struct rb_product *product, uint32_t vectors,
                        const int16_t *inputs, int32_t *codes, uint32_t *saturated);

    /* (optional) Let the clock pass, at most so long; only where it does not pass by itself. */
    void (*rest)(void *port, double seconds);

    /* Nonvolatile memory (with RB_RECORDS): of each cell the number of the last operation and its
     * pulses; of the board the last operation's number. */
    void (*remember)(void *port, uint32_t cell, uint32_t number, uint32_t pulses);
    void (*recall)(void *port, uint32_t cell, uint32_t *number, uint32_t *pulses);
    void (*remember_last)(void *port, uint32_t number);
    uint32_t (*recall_last)(void *port);

    /* On-chip words (where the envelope has any). */
    void (*store_words)(void *port, const uint8_t *cells, const uint8_t *values, uint32_t n,
                        bool clear);
    int32_t (*load_word)(void *port, uint32_t cell);
    bool (*words_lost)(void *port); /* (optional) */
};

struct rb_range_uv {
    int32_t low, high, step;
};

struct rb_envelope {
    uint8_t cell; /* enum rb_cell */
    uint8_t source_lines; /* 0 along the rows, 1 along the columns, 2 common */
    uint32_t tiles, rows, columns;
    struct rb_range_uv range[3]; /* by enum rb_line */
    uint32_t schemes; /* bit k: enum rb_scheme k */
    uint64_t width_low_ps, width_high_ps, width_step_ps;
    uint32_t abilities; /* enum rb_ability */
    uint32_t max_cells, max_steps, max_vectors, words, max_words;
    uint8_t word_bits, input_bits, adc_bits;
    uint32_t max_payload, max_message, abort_us;
    double link_bytes_per_s;
    double pace; /* real seconds for one of the board's clock; 1 on hardware */
    const char *model, *serial, *firmware, *chip;
    double edge_s, settle_s, conversion_s, multiply_s, word_s; /* durations */
    double link_s, bytes_per_s; /* of a simulated link; 0 on hardware */
};

/* As in LIMITS and BODY LIMITS, in the same order. Those of the body are 0 after boot, whatever the
 * board's own are: nobody drives it who does not know it. */
struct rb_limits {
    double bl_v, sl_v, wl_v, cell_v, gate_over_v, half_select_v, read_v;
    double current_a, energy_j, width_s, read_width_s, wait_s, low_s, high_s;
    uint64_t pulses_per_cell;
    double body_v, body_over_v;
};

struct rb_board;

/* Begin a new life: `boot` is another number after every boot, never 0. */
void rb_boot(struct rb_board *board, const struct rb_hooks *hooks, const struct rb_envelope *can,
             const struct rb_limits *own, uint32_t boot);

/* Bytes that came from the host, any number of them. */
void rb_receive(struct rb_board *board, const uint8_t *bytes, size_t size);

/* One look at everything: time, a slice of the operation under way, a frame of its reply. True
 * while there is more to do at once. */
bool rb_poll(struct rb_board *board);

/* A shot is about to be given: write its record. Only for ports with a `run` of their own. */
void rb_reach(struct rb_board *board, const struct rb_shot *shot);

#include "rram_board_state.h"

#endif
