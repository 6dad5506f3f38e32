/* Steps as messages hold them, and as the hardware gets them. */
#include <string.h>

#include "internal.h"

enum { STEP = 24 };

static const uint8_t *head_of(const struct rb_steps *steps, uint32_t step) {
    return steps->heads + STEP * (size_t)step;
}

static uint32_t columns_of(const uint8_t *head) {
    uint32_t bits = head[9];
    return (bits & 1u) + (bits >> 1 & 1u) + (bits >> 2 & 1u);
}

/* How many levels stand behind a step's columns. */
static uint32_t levels_of(const uint8_t *head) { return (head[10] & 1u) + (head[10] >> 1 & 1u); }

/* The columns of the steps, and the levels behind those of each, stand next in the message. False
 * for a step that makes no sense. */
bool rb_steps_take(struct rb_steps *steps, struct rb_fields *fields) {
    uint64_t values = 0;
    for (uint32_t step = 0; step < steps->count; step++) {
        const uint8_t *head = head_of(steps, step);
        if (head[8] > RB_BOTH || head[9] > 7 || head[10] > 3) {
            return false;
        }
        values += (uint64_t)columns_of(head) * steps->n + levels_of(head);
    }
    steps->columns = rb_take(fields, values, 4);
    for (uint64_t k = 0; steps->columns && k < values; k++) {
        if (rb_i32(steps->columns + 4 * (size_t)k) == RB_FLOATING) {
            return false;
        }
    }
    return true;
}

/* Levels of body and unselected word lines that stand at `at`, as the bits say. */
static void read_levels(const uint8_t *at, uint32_t bits, int32_t *body_uv, int32_t *idle_uv) {
    *body_uv = bits & 1u ? rb_i32(at) : RB_NO_LEVEL;
    *idle_uv = bits & 2u ? rb_i32(at + 4 * (bits & 1u)) : RB_NO_LEVEL;
}

/* The same, next in the message. False where bits or levels make no sense. */
bool rb_take_levels(struct rb_fields *fields, uint32_t bits, int32_t *body_uv, int32_t *idle_uv) {
    const uint8_t *at;
    *body_uv = *idle_uv = RB_NO_LEVEL;
    if (bits > 3) {
        return false;
    }
    at = rb_take(fields, (bits & 1u) + (bits >> 1), 4);
    if (at) {
        read_levels(at, bits, body_uv, idle_uv);
    }
    return !at || ((*body_uv != RB_NO_LEVEL || !(bits & 1u)) &&
                   (*idle_uv != RB_NO_LEVEL || !(bits & 2u)));
}

enum rb_error rb_check_others(struct rb_board *board, uint32_t bits) {
    if (bits & 1u && !(board->abilities & RB_BODY)) {
        return rb_refuse(board, RB_RANGE, "a level of the body is not available on this board");
    }
    if (bits & 2u && !(board->abilities & RB_IDLE_GATES)) {
        return rb_refuse(board, RB_RANGE,
                         "a level of unselected word lines is not available on this board");
    }
    return RB_FINE;
}

/* What the envelope says of steps, apart from levels and widths. */
enum rb_error rb_check_steps(struct rb_board *board, const struct rb_steps *steps) {
    uint32_t can = board->abilities;
    enum rb_error error = RB_FINE;
    for (uint32_t step = 0; step < steps->count; step++) {
        const uint8_t *head = head_of(steps, step);
        if (head[9] && !(can & RB_PER_CELL)) {
            return rb_refuse(board, RB_RANGE, "volts may not differ from cell to cell here");
        }
        if (head[8] == RB_GATE && !(can & RB_GATE_CURRENT)) {
            return rb_refuse(board, RB_RANGE, "this board measures no gate current");
        }
        if (head[8] == RB_BOTH && !(can & RB_BOTH_CURRENTS)) {
            return rb_refuse(board, RB_RANGE,
                             "a gate current beside a reading is not available on this board");
        }
        error = error ? error : rb_check_others(board, head[10]);
    }
    return error;
}

uint8_t rb_step_measure(const struct rb_steps *steps, uint32_t step) {
    return head_of(steps, step)[8];
}

void rb_step_shot(const struct rb_board *board, const struct rb_steps *steps, uint32_t step,
                  uint32_t place, uint32_t cell, struct rb_shot *shot) {
    const uint8_t *head = head_of(steps, step);
    const uint8_t *column = steps->columns;
    for (uint32_t before = 0; before < step; before++) {
        const uint8_t *other = head_of(steps, before);
        column += 4 * ((size_t)steps->n * columns_of(other) + levels_of(other));
    }
    shot->cell = cell;
    shot->width_ps = rb_u64(head);
    shot->measure = head[8];
    for (int line = 0; line < 3; line++) {
        if (head[9] >> line & 1) {
            shot->uv[line] = (int32_t)rb_u32_of(column, place);
            column += 4 * (size_t)steps->n;
        } else {
            shot->uv[line] = rb_i32(head + 12 + 4 * line);
        }
    }
    read_levels(column, head[10], &shot->body_uv, &shot->idle_uv);
    shot->is_pulse = rb_is_pulse(board, shot);
}

double rb_shot_s(const struct rb_board *board, const struct rb_shot *shot) {
    const struct rb_envelope *can = board->can;
    return 2.0 * can->edge_s + can->settle_s + (double)shot->width_ps / 1e12 +
           can->conversion_s * (shot->measure == RB_BOTH ? 2.0 : shot->measure ? 1.0 : 0.0);
}

double rb_slice_s(const struct rb_board *board) {
    return board->can->pace > 0.0 ? RB_SLICE_S / board->can->pace : 1e300;
}

void rb_reach(struct rb_board *board, const struct rb_shot *shot) {
    const struct rb_hooks *hooks = board->hooks;
    uint32_t number, pulses;
    if (!(board->abilities & RB_RECORDS) || board->job.type > RB_PROGRAM_TYPE) {
        return; /* products pulse nothing */
    }
    hooks->recall(hooks->port, shot->cell, &number, &pulses);
    if (number != board->job.number) {
        pulses = 0;
    } else if (!shot->is_pulse) {
        return;
    }
    hooks->remember(hooks->port, shot->cell, board->job.number, pulses + shot->is_pulse);
}

/* One shot by the hooks for single lines: bodies and gates up first and down last, a pulse on
 * record before it goes out. */
static void give(struct rb_board *board, const struct rb_shot *shot, struct rb_reading *reading) {
    const struct rb_hooks *hooks = board->hooks;
    void *port = hooks->port;
    rb_reach(board, shot);
    hooks->select(port, shot->cell, board->job.scheme);
    if (shot->body_uv != RB_NO_LEVEL) {
        hooks->body(port, shot->body_uv);
    }
    if (shot->idle_uv != RB_NO_LEVEL) {
        hooks->idle_gates(port, shot->idle_uv);
    }
    hooks->drive(port, RB_WL, shot->uv[RB_WL]);
    hooks->drive(port, RB_SL, shot->uv[RB_SL]);
    hooks->drive(port, RB_BL, shot->uv[RB_BL]);
    if (shot->measure) {
        reading->gate_a = rb_nan();
        reading->status =
            shot->measure == RB_BOTH
                ? hooks->convert_both(port, shot->width_ps, &reading->current_a, &reading->gate_a)
                : hooks->convert(port, shot->measure, shot->width_ps, &reading->current_a);
        reading->time_s = hooks->clock_s(port);
    } else {
        hooks->hold(port, shot->width_ps);
    }
    hooks->drive(port, RB_BL, 0);
    hooks->drive(port, RB_SL, 0);
    hooks->drive(port, RB_WL, 0);
    if (shot->idle_uv != RB_NO_LEVEL) {
        hooks->idle_gates(port, RB_NO_LEVEL);
    }
    if (shot->body_uv != RB_NO_LEVEL) {
        hooks->body(port, RB_NO_LEVEL);
    }
}

/* Hand `board->shots` to the hardware; how many of them it has done, or RB_BROKEN. */
int32_t rb_run(struct rb_board *board, uint32_t n) {
    const struct rb_hooks *hooks = board->hooks;
    uint32_t readings = 0;
    if (hooks->run) {
        return hooks->run(hooks->port, board->shots, n, board->readings);
    }
    for (uint32_t k = 0; k < n; k++) {
        give(board, &board->shots[k], &board->readings[readings]);
        readings += board->shots[k].measure != RB_NOTHING;
    }
    return (int32_t)n;
}

/* Current / (BL - SL) of a reading (S), NaN where it is none; the reading's status then says so. */
double rb_conductance(const struct rb_shot *shot, struct rb_reading *reading) {
    bool floats = shot->uv[RB_BL] == RB_FLOATING || shot->uv[RB_SL] == RB_FLOATING;
    double drop;
    if (shot->measure == RB_GATE) {
        return rb_nan();
    }
    drop = floats ? 0.0 : rb_volts(shot->uv[RB_BL]) - rb_volts(shot->uv[RB_SL]);
    if (floats || (drop == 0.0 && reading->status == RB_OK)) {
        reading->status = RB_NOT_A_NUMBER;
    }
    if (drop == 0.0 || (reading->status != RB_OK && reading->status != RB_COMPLIANCE)) {
        return rb_nan();
    }
    return reading->current_a / drop;
}
