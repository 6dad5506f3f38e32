/* The board as a process of this machine: bytes of the host on standard input and output, hardware
 * at the other end of a socket, whose number is the argument. There a simulated array answers
 * (drivers/simulated/board/firmware.py): each message is u32 length, u8 what, payload; each answer
 * u32 length, f64 clock, payload. Numbers and structures are little-endian as they lie in memory.
 */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { ARRAY_BY_SHOTS = 1, PRODUCTS_BY_CONVERSIONS = 2, STICKY_SWITCHES = 4, THREE_LINES = 8 };
enum { NO_HOST = 1, STRANGE_ARRAY, TOO_LARGE, WRONG_USE };

static struct rb_board board;
static struct rb_envelope can;
static struct rb_limits own;
static int array_fd;
static uint32_t way;
static double now_s;
static bool is_on;
static uint32_t number_of[RB_CHIP_CELLS], pulses_of[RB_CHIP_CELLS];
static int32_t words[RB_CHIP_CELLS];
static uint32_t last_number;
static uint8_t answer[64u << 20];

static void give_up(int status, const char *why) {
    fprintf(stderr, "board: %s\n", why);
    exit(status);
}

static void write_all(int fd, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    while (size) {
        ssize_t n = write(fd, at, size);
        if (n <= 0) {
            give_up(NO_HOST, "nobody takes what it writes");
        }
        at += n;
        size -= (size_t)n;
    }
}

static void read_all(int fd, void *bytes, size_t size) {
    uint8_t *at = bytes;
    while (size) {
        ssize_t n = read(fd, at, size);
        if (n <= 0) {
            exit(0); /* the array is gone */
        }
        at += n;
        size -= (size_t)n;
    }
}

struct part {
    const void *bytes;
    size_t size;
};

/* Ask the array; the answer's payload and, in `*size`, its length. */
static const uint8_t *ask(char what, const struct part *parts, int n, size_t *size) {
    uint8_t head[5];
    uint32_t length = 0;
    for (int k = 0; k < n; k++) {
        length += (uint32_t)parts[k].size;
    }
    rb_put32(head, length);
    head[4] = (uint8_t)what;
    write_all(array_fd, head, sizeof head);
    for (int k = 0; k < n; k++) {
        write_all(array_fd, parts[k].bytes, parts[k].size);
    }
    read_all(array_fd, head, 4);
    length = rb_u32(head);
    if (length < 8 || length > sizeof answer) {
        give_up(STRANGE_ARRAY, "what the array answers is too short or too long");
    }
    read_all(array_fd, answer, length);
    now_s = rb_f64(answer);
    if (size) {
        *size = length - 8;
    }
    return answer + 8;
}

/* What the array's control socket tells of this board; it knows before the host does. */
static void tell_state(void) {
    static uint8_t told[24];
    uint8_t state[24];
    struct part part = {state, sizeof state};
    rb_put32(state, board.last);
    rb_put32(state + 4, board.trips);
    rb_put32(state + 8, board.is_armed);
    rb_put32(state + 12, 0);
    rb_put_f64(state + 16, board.limits.read_v);
    if (memcmp(state, told, sizeof state)) {
        memcpy(told, state, sizeof state);
        ask('T', &part, 1, NULL);
    }
}

static double clock_s(void *port) {
    (void)port;
    return now_s;
}

static uint32_t ticks_ms(void *port) {
    struct timespec now;
    (void)port;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

static void send(void *port, const uint8_t *bytes, size_t size) {
    (void)port;
    tell_state();
    write_all(1, bytes, size);
}

static void begin(void *port, const struct rb_setup *setup) {
    uint8_t head[32];
    struct part parts[2] = {{head, sizeof head}, {setup->cells, 4 * (size_t)setup->n}};
    (void)port;
    memset(head, 0, sizeof head);
    rb_put32(head, setup->number);
    head[4] = setup->type;
    head[5] = setup->scheme;
    head[6] = setup->decides;
    rb_put_f64(head + 8, setup->compliance_a);
    rb_put32(head + 16, (uint32_t)setup->request_bytes);
    rb_put32(head + 20, setup->n);
    tell_state();
    ask('B', parts, setup->n ? 2 : 1, NULL);
}

static void end(void *port, size_t reply_bytes) {
    uint8_t size[4];
    struct part part = {size, sizeof size};
    (void)port;
    rb_put32(size, (uint32_t)reply_bytes);
    tell_state();
    ask('E', &part, 1, NULL);
}

static void off(void *port) {
    (void)port;
    is_on = is_on && (way & STICKY_SWITCHES);
}

static bool outputs_on(void *port) {
    (void)port;
    return is_on;
}

static int32_t give(const struct rb_shot *shots, uint32_t n, struct rb_reading *readings) {
    struct part part = {shots, n * sizeof *shots};
    size_t size;
    const uint8_t *told;
    is_on = true;
    told = ask('R', &part, 1, &size);
    memcpy(readings, told + 4, size - 4);
    return rb_i32(told);
}

static int32_t run(void *port, const struct rb_shot *shots, uint32_t n,
                   struct rb_reading *readings) {
    int32_t done = give(shots, n, readings);
    (void)port;
    for (int32_t k = 0; k < done; k++) {
        rb_reach(&board, &shots[k]);
    }
    return done;
}

/* Line by line, as a board without `run` is asked; the array gets a shot at a time. */
static struct rb_shot standing = {.body_uv = RB_NO_LEVEL, .idle_uv = RB_NO_LEVEL};

static void select_cell(void *port, uint32_t cell, uint8_t scheme) {
    (void)port;
    (void)scheme;
    standing.cell = cell;
}

static void drive(void *port, enum rb_line line, int32_t uv) {
    (void)port;
    standing.uv[line] = uv;
}

static void body(void *port, int32_t uv) {
    (void)port;
    standing.body_uv = uv;
}

static void idle_gates(void *port, int32_t uv) {
    (void)port;
    standing.idle_uv = uv;
}

static struct rb_reading stand(uint8_t measure, uint64_t width_ps) {
    struct rb_reading reading = {0.0, 0.0, 0.0, RB_UNKNOWN};
    standing.measure = measure;
    standing.width_ps = width_ps;
    while (give(&standing, 1, &reading) == 0) {
    }
    return reading;
}

static uint8_t convert(void *port, uint8_t measure, uint64_t width_ps, double *current_a) {
    struct rb_reading reading = stand(measure, width_ps);
    (void)port;
    *current_a = reading.current_a;
    return reading.status;
}

static uint8_t convert_both(void *port, uint64_t width_ps, double *current_a, double *gate_a) {
    struct rb_reading reading = stand(RB_BOTH, width_ps);
    (void)port;
    *current_a = reading.current_a;
    *gate_a = reading.gate_a;
    return reading.status;
}

static void hold(void *port, uint64_t width_ps) {
    (void)port;
    stand(RB_NOTHING, width_ps);
}

static int32_t multiply(void *port, const struct rb_product *product, uint32_t vectors,
                        const int16_t *inputs, int32_t *codes, uint32_t *saturated) {
    uint8_t head[52];
    struct part parts[2] = {{head, sizeof head},
                            {inputs, 2 * (size_t)vectors * product->block.rows}};
    const uint8_t *told;
    int32_t done;
    (void)port;
    memset(head, 0, sizeof head);
    rb_put32(head, product->block.tile);
    rb_put32(head + 4, product->block.row);
    rb_put32(head + 8, product->block.rows);
    rb_put32(head + 12, product->block.column);
    rb_put32(head + 16, product->block.columns);
    rb_put32(head + 20, (uint32_t)product->read_uv);
    rb_put32(head + 24, (uint32_t)product->wl_uv);
    rb_put32(head + 28, product->input_bits);
    rb_put_f64(head + 32, product->full_scale_a);
    rb_put32(head + 40, vectors);
    rb_put32(head + 44, (uint32_t)product->body_uv);
    rb_put32(head + 48, (uint32_t)product->idle_uv);
    is_on = true;
    told = ask('M', parts, 2, NULL);
    done = rb_i32(told);
    *saturated += rb_u32(told + 4);
    memcpy(codes, told + 8, 4 * (size_t)done * product->block.columns);
    return done;
}

static void rest(void *port, double seconds) {
    struct part part = {&seconds, sizeof seconds};
    (void)port;
    ask('W', &part, 1, NULL);
}

static void remember(void *port, uint32_t cell, uint32_t number, uint32_t pulses) {
    (void)port; /* the array has counted it already, in what outlives this process */
    number_of[cell] = number;
    pulses_of[cell] = pulses;
}

static void recall(void *port, uint32_t cell, uint32_t *number, uint32_t *pulses) {
    (void)port;
    *number = number_of[cell];
    *pulses = pulses_of[cell];
}

static void remember_last(void *port, uint32_t number) {
    (void)port;
    last_number = number;
}

static uint32_t recall_last(void *port) {
    (void)port;
    return last_number;
}

static void store_words(void *port, const uint8_t *cells, const uint8_t *values, uint32_t n,
                        bool clear) {
    uint8_t head[8];
    struct part parts[3] = {{head, sizeof head}, {cells, 4 * (size_t)n}, {values, 4 * (size_t)n}};
    (void)port;
    if (clear) {
        memset(words, 0, sizeof words);
    }
    for (uint32_t k = 0; k < n; k++) {
        words[rb_u32_of(cells, k)] = rb_i32(values + 4 * (size_t)k);
    }
    rb_put32(head, n);
    rb_put32(head + 4, clear);
    ask('S', parts, n ? 3 : 1, NULL);
}

static int32_t load_word(void *port, uint32_t cell) {
    (void)port;
    return words[cell];
}

/* What the array says at the start, one value after the other. */
static uint32_t next32(const uint8_t **at) {
    uint32_t value = rb_u32(*at);
    *at += 4;
    return value;
}

static uint64_t next64(const uint8_t **at) {
    uint64_t value = rb_u64(*at);
    *at += 8;
    return value;
}

static double next_f64(const uint8_t **at) {
    double value = rb_f64(*at);
    *at += 8;
    return value;
}

static const char *next_text(const uint8_t **at, char *text) {
    uint32_t size = next32(at);
    memcpy(text, *at, size);
    text[size] = 0;
    *at += size;
    return text;
}

static void learn_envelope(const uint8_t **at) {
    static char texts[4][256];
    can.cell = (uint8_t)next32(at);
    can.source_lines = (uint8_t)next32(at);
    can.tiles = next32(at);
    can.rows = next32(at);
    can.columns = next32(at);
    for (int line = 0; line < 3; line++) {
        can.range[line].low = (int32_t)next32(at);
        can.range[line].high = (int32_t)next32(at);
        can.range[line].step = (int32_t)next32(at);
    }
    can.schemes = next32(at);
    can.width_low_ps = next64(at);
    can.width_high_ps = next64(at);
    can.width_step_ps = next64(at);
    can.abilities = next32(at);
    can.max_cells = next32(at);
    can.max_steps = next32(at);
    can.max_vectors = next32(at);
    can.words = next32(at);
    can.max_words = next32(at);
    can.word_bits = (uint8_t)next32(at);
    can.input_bits = (uint8_t)next32(at);
    can.adc_bits = (uint8_t)next32(at);
    can.max_payload = RB_MAX_PAYLOAD;
    can.max_message = RB_MAX_MESSAGE;
    can.abort_us = next32(at);
    can.link_bytes_per_s = can.bytes_per_s = next_f64(at);
    can.pace = next_f64(at);
    can.edge_s = next_f64(at);
    can.settle_s = next_f64(at);
    can.conversion_s = next_f64(at);
    can.multiply_s = next_f64(at);
    can.word_s = next_f64(at);
    can.link_s = next_f64(at);
    can.model = next_text(at, texts[0]);
    can.serial = next_text(at, texts[1]);
    can.firmware = next_text(at, texts[2]);
    can.chip = next_text(at, texts[3]);
}

static void learn_limits(const uint8_t **at) {
    double values[14];
    for (int k = 0; k < 14; k++) {
        values[k] = next_f64(at);
    }
    memcpy(&own, values, sizeof values);
    own.pulses_per_cell = next64(at);
    own.body_v = next_f64(at);
    own.body_over_v = next_f64(at);
}

static void learn_chip(const uint8_t **at) {
    uint32_t cells = can.tiles * can.rows * can.columns;
    if (cells > RB_CHIP_CELLS || can.rows > RB_MAX_ROWS || can.columns > RB_MAX_COLUMNS) {
        give_up(TOO_LARGE, "the chip has more cells, rows or columns than host/config.h");
    }
    last_number = next32(at);
    memcpy(number_of, *at, 4 * (size_t)cells);
    memcpy(pulses_of, *at + 4 * (size_t)cells, 4 * (size_t)cells);
    memcpy(words, *at + 8 * (size_t)cells, 4 * (size_t)cells);
}

int main(int count, char **arguments) {
    struct rb_hooks hooks = {.clock_s = clock_s,
                             .ticks_ms = ticks_ms,
                             .send = send,
                             .begin = begin,
                             .end = end,
                             .off = off,
                             .is_on = outputs_on,
                             .select = select_cell,
                             .drive = drive,
                             .hold = hold,
                             .convert = convert,
                             .body = body,
                             .idle_gates = idle_gates,
                             .convert_both = convert_both,
                             .run = run,
                             .multiply = multiply,
                             .rest = rest,
                             .remember = remember,
                             .recall = recall,
                             .remember_last = remember_last,
                             .recall_last = recall_last,
                             .store_words = store_words,
                             .load_word = load_word};
    static uint8_t bytes[1u << 18];
    struct pollfd link = {0, POLLIN, 0};
    const uint8_t *at;
    uint32_t boot;
    bool is_busy = false;
    if (count != 2 || sizeof(struct rb_shot) != 40 || sizeof(struct rb_reading) != 32) {
        give_up(WRONG_USE, "it takes the number of a socket to its array, and is run by rram-hil");
    }
    array_fd = atoi(arguments[1]);
    at = ask('H', NULL, 0, NULL);
    boot = next32(&at);
    way = next32(&at);
    learn_envelope(&at);
    learn_limits(&at);
    learn_chip(&at);
    if (way & ARRAY_BY_SHOTS) {
        hooks.run = NULL;
    }
    if (way & THREE_LINES) {
        hooks.body = NULL;
        hooks.idle_gates = NULL;
        hooks.convert_both = NULL;
    }
    if (way & PRODUCTS_BY_CONVERSIONS) {
        hooks.multiply = NULL;
    }
    rb_boot(&board, &hooks, &can, &own, boot);
    for (;;) {
        if (poll(&link, 1, is_busy ? 0 : 20) > 0) {
            ssize_t n = read(0, bytes, sizeof bytes);
            if (n <= 0) {
                return 0;
            }
            if (!is_busy) {
                ask('C', NULL, 0, NULL); /* the clock may have been moved */
            }
            rb_receive(&board, bytes, (size_t)n);
        }
        is_busy = rb_poll(&board);
        tell_state();
    }
}
