/* Whatever a host sends: the library under libFuzzer, before hardware that keeps account.
 *
 * An input is u8 kind of cell and a list of turns: u8 what, u8 length, bytes. Most turns become whole frames with right
 * check sums around these bytes, so that the fuzzer gets to what lies behind them. Whatever came,
 * outputs must be off once no operation is under way, bodies and unselected word lines without
 * level, and no cell may get more pulses than its record says.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { CELLS = 2 * 8 * 8, MOST_POLLS = 3000 };

static struct rb_board board;
static uint32_t now_ms, random_state;
static bool is_on;
static uint32_t number_of[CELLS], pulses_of[CELLS], given[CELLS];
static int32_t words[CELLS];
static uint8_t kind;
static struct rb_shot standing = {.body_uv = RB_NO_LEVEL, .idle_uv = RB_NO_LEVEL};
static uint8_t last_type;

static double clock_s(void *port) {
    (void)port;
    return now_ms / 1e3;
}

static uint32_t ticks_ms(void *port) {
    (void)port;
    return now_ms;
}

static void send(void *port, const uint8_t *bytes, size_t size) {
    static uint8_t sum;
    (void)port;
    for (size_t k = 0; k < size; k++) {
        sum = (uint8_t)(sum + bytes[k]); /* every byte is one that may be read */
    }
    last_type = sum;
}

static void off(void *port) {
    (void)port;
    is_on = false;
}

static bool outputs_on(void *port) {
    (void)port;
    return is_on;
}

static void select_cell(void *port, uint32_t cell, uint8_t scheme) {
    (void)port;
    if (cell >= CELLS || scheme > RB_THIRD) {
        abort();
    }
    is_on = true;
    standing.cell = cell;
}

static int32_t allowed(int32_t uv, int32_t most_uv) {
    if (uv != RB_FLOATING && (uv > most_uv || uv < -most_uv)) {
        abort(); /* beyond the board's own limits */
    }
    return uv;
}

static void drive(void *port, enum rb_line line, int32_t uv) {
    (void)port;
    standing.uv[line] = allowed(uv, 5000000);
}

/* They rise before the gate of the selected cell and fall after it. */
static int32_t beside_closed_gate(int32_t uv, int32_t most_uv) {
    if (standing.uv[RB_WL] != 0 || kind == RB_1R) {
        abort();
    }
    return allowed(uv, most_uv);
}

static void body(void *port, int32_t uv) {
    (void)port;
    standing.body_uv = beside_closed_gate(uv, 3000000);
}

static void idle_gates(void *port, int32_t uv) {
    (void)port;
    standing.idle_uv = beside_closed_gate(uv, 5000000);
}

static void hold(void *port, uint64_t width_ps) {
    (void)port;
    now_ms += (uint32_t)(width_ps / 1000000000u);
    if (rb_is_pulse(&board, &standing)) {
        given[standing.cell]++;
        if (number_of[standing.cell] != board.job.number) {
            abort(); /* it is not on record */
        }
    }
}

static uint8_t convert(void *port, uint8_t measure, uint64_t width_ps, double *current_a) {
    hold(port, width_ps);
    random_state = random_state * 1664525u + 1013904223u;
    *current_a = measure == RB_GATE ? 1e-12 : ((double)random_state - 2147483648.0) * 1e-14;
    return random_state >> 28 ? RB_OK : (uint8_t)(random_state >> 20 & 3u) % RB_NOT_A_NUMBER;
}

static uint8_t convert_both(void *port, uint64_t width_ps, double *current_a, double *gate_a) {
    *gate_a = 1e-12;
    return convert(port, RB_CURRENT, width_ps, current_a);
}

static void remember(void *port, uint32_t cell, uint32_t number, uint32_t pulses) {
    (void)port;
    number_of[cell] = number;
    pulses_of[cell] = pulses;
}

static void recall(void *port, uint32_t cell, uint32_t *number, uint32_t *pulses) {
    (void)port;
    *number = number_of[cell];
    *pulses = pulses_of[cell];
}

static uint32_t newest;

static void remember_last(void *port, uint32_t number) {
    (void)port;
    newest = number;
}

static uint32_t recall_last(void *port) {
    (void)port;
    return newest;
}

static void store_words(void *port, const uint8_t *cells, const uint8_t *values, uint32_t n,
                        bool clear) {
    (void)port;
    if (clear) {
        memset(words, 0, sizeof words);
    }
    for (uint32_t k = 0; k < n; k++) {
        words[rb_u32_of(cells, k)] = rb_i32(values + 4 * (size_t)k);
    }
}

static int32_t load_word(void *port, uint32_t cell) {
    (void)port;
    return words[cell];
}

static void frame(const uint8_t *bytes, size_t size, uint8_t type, bool more, uint32_t part) {
    uint8_t head[36], end[4];
    uint32_t crc;
    static uint32_t sequence;
    memset(head, 0, sizeof head);
    memcpy(head, "\xA5RBZ", 4);
    head[4] = 1;
    head[5] = type;
    head[6] = more ? RB_MORE : 0;
    sequence += part == 0;
    rb_put32(head + 8, sequence);
    rb_put32(head + 16, part);
    rb_put32(head + 20, (uint32_t)size);
    crc = rb_crc32(0, head, 32);
    rb_put32(head + 32, crc);
    rb_put32(end, rb_crc32(crc, bytes, size));
    rb_receive(&board, head, sizeof head);
    rb_receive(&board, bytes, size);
    rb_receive(&board, end, sizeof end);
}

static void poll_for_long(void) {
    for (int k = 0; k < MOST_POLLS && rb_poll(&board); k++) {
        now_ms += k % 16 == 0;
    }
    if (board.job.is_active) {
        frame(NULL, 0, RB_ABORT, false, 0);
        while (rb_poll(&board)) {
        }
    }
    if (is_on || standing.body_uv != RB_NO_LEVEL || standing.idle_uv != RB_NO_LEVEL) {
        abort();
    }
}

static void boot(const struct rb_hooks *hooks) {
    static struct rb_envelope can = {
        RB_1T1R, 0, 2, 8, 8,
        {{-5000000, 5000000, 1221}, {-5000000, 5000000, 1221}, {-5000000, 5000000, 1221}},
        31, 10000, 1000000000000u, 1, 4095 & ~(RB_VIRTUAL_CLOCK | RB_UNSIGNED_INPUTS), 32, 64, 32, CELLS, CELLS, 8, 8, 12,
        1024, 4096, 1000, 1e4, 1.0, "fuzz", "1", "1", "", 1e-8, 1e-5, 1e-5, 1e-6, 1e-8, 0.0, 0.0};
    static const struct rb_limits own = {5.0,  5.0,  5.0, 5.0, 6.0,  5.0, 0.5,
                                         1e-2, 1.0, 1.0, 1.0, 1e3, 0.0, 1e-2, 1000000, 3.0, 0.4};
    uint8_t limits[120], body_limits[16];
    can.cell = kind;
    rb_boot(&board, hooks, &can, &own, 1);
    rb_put_limits(limits, &own);
    frame(limits, sizeof limits, RB_LIMITS, false, 0);
    rb_put_body_limits(body_limits, &own);
    frame(body_limits, sizeof body_limits, RB_BODY_LIMITS, false, 0);
    frame(NULL, 0, RB_ARM, false, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct rb_hooks hooks = {
        NULL, clock_s, ticks_ms, send, NULL, NULL, off, outputs_on, select_cell, drive, hold,
        convert, body, idle_gates, convert_both, NULL, NULL, NULL, remember, recall, remember_last,
        recall_last, store_words, load_word, NULL};
    now_ms = 0;
    kind = size ? data[0] % 3u : RB_1T1R;
    data += size != 0;
    size -= size != 0;
    random_state = 1;
    newest = 0;
    memset(number_of, 0, sizeof number_of);
    memset(pulses_of, 0, sizeof pulses_of);
    memset(given, 0, sizeof given);
    boot(&hooks);
    while (size >= 2) {
        uint8_t what = data[0];
        size_t n = data[1];
        data += 2;
        size -= 2;
        n = n < size ? n : size;
        if (what >= 0xF0) {
            rb_receive(&board, data, n); /* as it is */
            now_ms += 250;
            rb_poll(&board);
        } else if (what >= 0xE0) {
            frame(data, n / 2, what & 15u, true, 0);
            frame(data + n / 2, n - n / 2, what & 15u, false, 1);
        } else if (what >= 0xD0) {
            poll_for_long();
            boot(&hooks); /* power was lost: the records stay */
        } else {
            frame(data, n, what & 0x1Fu, false, 0);
        }
        if (what & 0x20) {
            poll_for_long();
        }
        data += n;
        size -= n;
    }
    poll_for_long();
    return 0;
}
