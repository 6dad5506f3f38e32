/* The reference port: an LM3S6965 whose UART 0 is the link, with a demonstration load in the place
 * of converters, switches and chip. A real port keeps all of this but the functions from
 * `select_cell` to `convert_both`, which reach its own hardware. */
#include "load.h"
#include "registers.h"
#include "rram_board.h"

enum { CLOCK_HZ = 50000000, TICK_HZ = 1000, BAUD = 115200, RING = 2048, MEMORY_MARK = 0x52524D31 };

/* Time. */

/* 64 bits: a clock that went back after 49 days would hold a pulse for as long. */
static volatile uint64_t milliseconds;
void systick(void);

void systick(void) { milliseconds++; }

static uint32_t ticks_ms(void *port) {
    (void)port;
    return (uint32_t)milliseconds;
}

static double clock_s(void *port) {
    uint64_t before;
    uint32_t left;
    (void)port;
    do { /* also where the counter was read in the middle of its step */
        before = milliseconds;
        left = SYSTICK_VAL;
    } while (before != milliseconds);
    left = CLOCK_HZ / TICK_HZ - 1 - left; /* it counts down */
    return ((double)before + left / (double)(CLOCK_HZ / TICK_HZ)) / TICK_HZ;
}

static void start_clock(void) {
    SYSCTL_RCC = RCC_BYPASS | RCC_PLL_OFF | RCC_CRYSTAL_8MHZ;
    SYSCTL_RCC = RCC_BYPASS | RCC_CRYSTAL_8MHZ | RCC_DIVIDE | RCC_DIVISOR(4u);
    while (!(SYSCTL_RIS & RIS_PLL_LOCKED)) {
    }
    SYSCTL_RCC = RCC_CRYSTAL_8MHZ | RCC_DIVIDE | RCC_DIVISOR(4u);
    SYSTICK_LOAD = CLOCK_HZ / TICK_HZ - 1;
    SYSTICK_VAL = 0;
    SYSTICK_CTRL = SYSTICK_ON;
}

/* The link: bytes that come are kept by an interrupt, whatever goes on. */

static volatile uint8_t ring[RING];
static volatile uint32_t put, taken;
void uart0(void);

void uart0(void) {
    UART0_ICR = INTERRUPT_CAME;
    while (!(UART0_FR & FR_NOTHING_CAME)) {
        uint8_t byte = (uint8_t)UART0_DR;
        if (put - taken < RING) { /* what is lost the host sends again */
            ring[put % RING] = byte;
            put++;
        }
    }
}

static void start_link(void) {
    uint32_t divisor = CLOCK_HZ * 4u / BAUD; /* in 64ths of 16 bits' time */
    SYSCTL_RCGC1 |= RCGC1_UART0;
    SYSCTL_RCGC2 |= RCGC2_GPIOA;
    GPIOA_AFSEL |= 3u;
    GPIOA_DEN |= 3u;
    UART0_IBRD = divisor / 64u;
    UART0_FBRD = divisor % 64u;
    UART0_LCRH = LCRH_8_BITS_FIFO;
    UART0_CTL = CTL_ON;
    UART0_IM = INTERRUPT_CAME;
    NVIC_ENABLE = 1u << UART0_INTERRUPT;
}

static void send(void *port, const uint8_t *bytes, size_t size) {
    (void)port;
    while (size--) {
        while (UART0_FR & FR_FULL) {
        }
        UART0_DR = *bytes++;
    }
}

/* Nonvolatile memory: here RAM that a reset leaves alone. */

__attribute__((section(".kept"))) static struct {
    uint32_t mark, boots, last, number[LOAD_CELLS], pulses[LOAD_CELLS];
} kept;

static void remember(void *port, uint32_t cell, uint32_t number, uint32_t pulses) {
    (void)port;
    kept.number[cell] = number;
    kept.pulses[cell] = pulses;
}

static void recall(void *port, uint32_t cell, uint32_t *number, uint32_t *pulses) {
    (void)port;
    *number = kept.number[cell];
    *pulses = kept.pulses[cell];
}

static void remember_last(void *port, uint32_t number) {
    (void)port;
    kept.last = number;
}

static uint32_t recall_last(void *port) {
    (void)port;
    return kept.last;
}

static uint32_t next_boot(void) {
    if (kept.mark != MEMORY_MARK) {
        kept.mark = MEMORY_MARK;
        kept.boots = kept.last = 0;
        for (uint32_t cell = 0; cell < LOAD_CELLS; cell++) {
            kept.number[cell] = kept.pulses[cell] = 0;
        }
    }
    kept.boots++;
    return kept.boots ? kept.boots : 1;
}

/* The cells: a real port sets converters and switches here. */

static struct {
    uint32_t cell;
    int32_t uv[3], body_uv;
    bool is_on;
} lines;

static void off(void *port) {
    (void)port;
    lines.is_on = false;
    lines.uv[RB_BL] = lines.uv[RB_SL] = lines.uv[RB_WL] = 0;
    lines.body_uv = RB_NO_LEVEL;
}

static bool is_on(void *port) {
    (void)port;
    return lines.is_on;
}

static void select_cell(void *port, uint32_t cell, uint8_t scheme) {
    (void)port;
    (void)scheme; /* cells that are not selected feel nothing here */
    lines.cell = cell;
    lines.is_on = true;
}

static void drive(void *port, enum rb_line line, int32_t uv) {
    (void)port;
    lines.uv[line] = uv;
}

static void body(void *port, int32_t uv) {
    (void)port;
    lines.body_uv = uv;
}

static void idle_gates(void *port, int32_t uv) {
    (void)port;
    (void)uv; /* as above */
}

static double level(enum rb_line line) {
    return lines.uv[line] == RB_FLOATING ? 0.0 : lines.uv[line] / 1e6;
}

/* A body below its transistor's source holds the gate back. */
static double gate(void) {
    double bl = level(RB_BL), sl = level(RB_SL), source = bl < sl ? bl : sl;
    double reverse = lines.body_uv == RB_NO_LEVEL ? 0.0 : source - lines.body_uv / 1e6;
    return level(RB_WL) - 0.2 * reverse;
}

static void hold(void *port, uint64_t width_ps) {
    double until_s = clock_s(port) + (double)width_ps / 1e12;
    load_pulse(lines.cell, level(RB_BL), level(RB_SL), gate());
    while (clock_s(port) < until_s) {
    }
}

/* 12 bits of 1 mA, as a converter behind one transimpedance amplifier tells. */
static uint8_t convert(void *port, uint8_t measure, uint64_t width_ps, double *current_a) {
    const double step_a = 1e-3 / 2047.0;
    double flows_a, codes;
    hold(port, width_ps);
    flows_a = measure == RB_CURRENT && lines.uv[RB_BL] != RB_FLOATING &&
                      lines.uv[RB_SL] != RB_FLOATING
                  ? load_current_a(lines.cell, level(RB_BL), level(RB_SL), gate())
                  : 0.0;
    codes = flows_a / step_a;
    if (!(codes < 2047.0 && codes > -2047.0)) {
        *current_a = codes < 0.0 ? -1e-3 : 1e-3;
        return RB_OVER_RANGE;
    }
    *current_a = (int32_t)(codes + (codes < 0.0 ? -0.5 : 0.5)) * step_a;
    return RB_OK;
}

static uint8_t convert_both(void *port, uint64_t width_ps, double *current_a, double *gate_a) {
    *gate_a = 0.0; /* no gate leaks here */
    return convert(port, RB_CURRENT, width_ps, current_a);
}

static const struct rb_hooks hooks = {
    .clock_s = clock_s,
    .ticks_ms = ticks_ms,
    .send = send,
    .off = off,
    .is_on = is_on,
    .select = select_cell,
    .drive = drive,
    .hold = hold,
    .convert = convert,
    .body = body,
    .idle_gates = idle_gates,
    .convert_both = convert_both,
    .remember = remember,
    .recall = recall,
    .remember_last = remember_last,
    .recall_last = recall_last,
};

static const struct rb_envelope can = {
    .rows = LOAD_ROWS,
    .columns = LOAD_COLUMNS,
    .tiles = 1,
    .range = {{-5000000, 5000000, 2442}, {-5000000, 5000000, 2442}, {0, 5000000, 1221}},
    .schemes = 1u << RB_INHIBIT | 1u << RB_GROUNDED,
    .width_low_ps = 1000000,
    .width_high_ps = 100000000000,
    .width_step_ps = 20000,
    .abilities = RB_PER_CELL | RB_PROGRAM | RB_MULTIPLY | RB_RECORDS | RB_READ_BLOCKS | RB_BODY |
                 RB_IDLE_GATES | RB_BOTH_CURRENTS,
    .max_cells = 32,
    .max_steps = 8,
    .max_vectors = 64,
    .input_bits = 8,
    .adc_bits = 12,
    .max_payload = RB_MAX_PAYLOAD,
    .max_message = RB_MAX_MESSAGE,
    .abort_us = 900000, /* eight shots of the longest width */
    .link_bytes_per_s = BAUD / 10.0,
    .pace = 1.0,
    .model = "rram_hil reference port, demonstration load",
    .serial = "lm3s6965",
    .firmware = "1",
    .chip = "",
    .edge_s = 1e-6,
    .settle_s = 1e-6,
    .conversion_s = 10e-6,
    .multiply_s = 1e-3,
};

static const struct rb_limits own = {
    .bl_v = 5.0,
    .sl_v = 5.0,
    .wl_v = 5.0,
    .cell_v = 5.0,
    .gate_over_v = 5.0,
    .half_select_v = 5.0,
    .read_v = 0.5,
    .current_a = 5e-3,
    .energy_j = 1.0,
    .width_s = 0.1,
    .read_width_s = 0.1,
    .wait_s = 1e7,
    .low_s = 0.0,
    .high_s = 1e-3,
    .pulses_per_cell = UINT32_MAX,
    .body_v = 3.0,
    .body_over_v = 0.4,
};

static struct rb_board board;

int main(void) {
    start_clock();
    start_link();
    load_begin();
    rb_boot(&board, &hooks, &can, &own, next_boot());
    for (;;) {
        uint8_t bytes[64];
        uint32_t n = 0;
        for (; taken != put && n < sizeof bytes; taken++) {
            bytes[n++] = ring[taken % RING];
        }
        rb_receive(&board, bytes, n);
        rb_poll(&board);
    }
}
