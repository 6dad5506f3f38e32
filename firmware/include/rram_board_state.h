/* What a board remembers, so that a port can give it memory. Only the library looks inside. */
#ifndef RRAM_BOARD_STATE_H
#define RRAM_BOARD_STATE_H

#define RB_OVERHEAD 40u /* bytes of a frame beside its payload */
#define RB_SMALL 600u   /* bytes of the longest reply of a command but EXECUTED */
#define RB_TEXT 160u    /* bytes of the text of an error */
#define RB_WAITING 4u   /* commands that wait for the end of an operation */

struct rb_outgoing {
    const uint8_t *message; /* NULL: nothing to send */
    size_t size;
    uint32_t part, sequence;
    uint8_t type, flags;
};

/* A message that comes in parts. */
struct rb_incoming {
    uint32_t parts, sequence;
    size_t size;
};

struct rb_waiting {
    uint32_t sequence;
    uint8_t type;
};

/* The steps of an APPLY, or the read step of a PROGRAM: where they stand in the request. */
struct rb_steps {
    const uint8_t *heads, *columns;
    uint32_t count, n;
};

struct rb_apply {
    struct rb_steps steps;
    uint32_t n, repeat, measured; /* measurements of a cell */
    bool has_gates;               /* the reply has a column of gate currents */
    uint8_t kind[2];              /* of the bounds above and below */
    double bound[2];
    const uint8_t *cells, *bounds[2];
    /* Where it stands. */
    uint32_t at, turn, step, reading;
};

struct rb_ramp {
    int32_t start, stop, step;
    const uint8_t *starts; /* one a cell, or NULL */
};

struct rb_train {
    uint64_t width_ps;
    struct rb_ramp amplitude, gate;
    int32_t body_uv, idle_uv;
};

/* Where one cell of a write-verify stands. */
struct rb_progress {
    uint32_t confirmed, reversals, ramp;
    int8_t polarity, next; /* 1 SET, -1 RESET, 0 a reading */
    uint8_t is_active;
};

/* Vectors on one block: the inputs come from `input`, what the columns give goes to `take`. */
struct rb_vectors {
    struct rb_product product;
    uint32_t count, at, saturated;
    uint32_t column, row; /* of a sum of single conversions */
    double sum_a;
    int32_t (*input)(const struct rb_board *board, uint32_t vector, uint32_t row);
    void (*take)(struct rb_board *board, uint32_t vector, const int32_t *codes);
};

/* One block read by codes. */
struct rb_coded {
    uint32_t order, prime, doublings; /* of the matrix: order = 2^doublings (prime + 1) */
    uint32_t repeat, turn, widened, tries;
    uint32_t vectors, saturated; /* of this block */
    bool is_pilot;
    double full_scale_a, wanted_a;
};

struct rb_program {
    struct rb_train train[2]; /* SET, RESET */
    struct rb_steps read;
    uint32_t n, confirm, max_reversals;
    uint8_t others; /* bits of the message: which trains have levels of body and idle gates */
    bool is_coded;
    const uint8_t *cells, *low, *high, *budget;
    /* Where it stands. */
    uint32_t at, vectors, tile;
    int8_t pulsing; /* coded: 0 reading, 1 SETs, -1 RESETs */
};

struct rb_multiply {
    const uint8_t *codes;
    bool words;
    uint8_t others, sum_bytes; /* others: bits of the message */
};

struct rb_blocks {
    uint32_t n, at, cells, columns; /* of all blocks */
    uint32_t others;                /* bits of the message */
    const uint8_t *blocks;
    uint32_t cells_done, columns_done, vectors, saturated;
};

/* What the selected cells of a tile leave on others, in pulses: on those of each column, and on those
 * of other rows and columns, by the columns and rows where it comes from. */
struct rb_sums {
    uint64_t column[RB_MAX_COLUMNS], apart_column[RB_MAX_COLUMNS], apart_row[RB_MAX_ROWS], apart;
};

struct rb_wait {
    double until_s;
};

struct rb_words {
    uint32_t n;
    bool clear;
    const uint8_t *cells, *values;
};

struct rb_job {
    bool is_active;
    uint8_t type, stop; /* the error that stops it; 0: none */
    uint32_t number, sequence, crc;
    size_t size; /* of the request */
    double compliance_a, started_s;
    uint8_t scheme;
    struct rb_vectors vectors;
    struct rb_coded coded;
    union {
        struct rb_apply apply;
        struct rb_program program;
        struct rb_multiply multiply;
        struct rb_blocks blocks;
        struct rb_words words;
        struct rb_wait wait;
    } as;
};

struct rb_board {
    const struct rb_hooks *hooks;
    const struct rb_envelope *can;
    struct rb_limits own, limits;
    uint32_t abilities; /* those of the envelope that the hooks bear out */
    uint32_t boot, last, watchdog_ms, trips;
    uint32_t heard_ms, noticed_ms, byte_ms;
    bool is_armed, is_tripped, has_limits, has_kept;
    uint8_t kept_flags;
    uint32_t kept_crc, executions;
    size_t kept_size, reply_size;
    uint32_t frame_bytes;
    struct rb_job job;
    struct rb_incoming incoming;
    struct rb_outgoing outgoing;
    struct rb_waiting waiting[RB_WAITING];
    uint32_t waiting_count;
    char text[RB_TEXT];
    uint8_t small[RB_SMALL];
    size_t pending;
    uint8_t frame[RB_MAX_PAYLOAD + RB_OVERHEAD];
    uint8_t message[RB_MAX_MESSAGE]; /* the last message of several parts, or the operation's */
    uint8_t reply[RB_MAX_MESSAGE];   /* the last operation's */
    uint8_t seen[(RB_CHIP_CELLS + 7u) / 8u];
    struct rb_shot shots[RB_SHOTS];
    struct rb_reading readings[RB_SHOTS];
    struct rb_progress progress[RB_MAX_CELLS];
    struct rb_sums sums;
    int16_t inputs[RB_VECTORS * RB_MAX_ROWS];
    int32_t codes[RB_VECTORS * RB_MAX_COLUMNS];
    uint8_t residues[2u * RB_MAX_ROWS + 64u];
    double decoded[RB_CODE_VALUES], averaged[RB_CODE_VALUES];
    double scatter[RB_MAX_COLUMNS];
};

#endif
