/* APPLY: every cell through a list of steps. WAIT, and WRITE WORDS, which need no line at all. */
#include <string.h>

#include "internal.h"

enum { HEAD = 44, REPLY_HEAD = 32 };
static const uint32_t MOST_READINGS = 1u << 30;

static bool measures_current(uint8_t measure) { return measure == RB_CURRENT || measure == RB_BOTH; }

static enum rb_error parse(struct rb_board *board, struct rb_fields *fields) {
    struct rb_job *job = &board->job;
    struct rb_apply *apply = &job->as.apply;
    const uint8_t *head = rb_take(fields, 1, HEAD - 4);
    bool has_current = false, has_stop;
    uint64_t measured = 0;
    if (!head) {
        return RB_FINE;
    }
    apply->n = rb_u32(head);
    apply->steps.count = rb_u32(head + 4);
    apply->steps.n = apply->n;
    apply->repeat = rb_u32(head + 8);
    job->scheme = head[12];
    job->compliance_a = rb_f64(head + 16);
    apply->steps.heads = rb_take(fields, apply->steps.count, 24);
    apply->cells = rb_take(fields, apply->n, 4);
    for (int side = 0; side < 2; side++) {
        apply->kind[side] = head[13 + side];
        apply->bound[side] = rb_f64(head + 24 + 8 * side);
        if (apply->kind[side] == 2) {
            apply->bounds[side] = rb_take(fields, apply->n, 8);
        }
    }
    if (fields->is_short) {
        return RB_FINE;
    }
    if (!rb_steps_take(&apply->steps, fields)) {
        return rb_refuse(board, RB_BAD_REQUEST, "a step makes no sense");
    }
    if (fields->is_short) {
        return RB_FINE;
    }
    has_stop = apply->kind[0] || apply->kind[1];
    for (uint32_t step = 0; step < apply->steps.count; step++) {
        uint8_t measure = rb_step_measure(&apply->steps, step);
        has_current |= measures_current(measure);
        apply->has_gates |= measure == RB_BOTH;
        measured += measure != RB_NOTHING;
    }
    if (apply->steps.count == 0 || apply->repeat == 0 || job->scheme > RB_THIRD ||
        apply->kind[0] > 2 || apply->kind[1] > 2 || (has_stop && !has_current)) {
        return rb_refuse(board, RB_BAD_REQUEST,
                         "APPLY needs a step, a repeat, a scheme and conditions that are known");
    }
    for (uint32_t k = 0; k < apply->n; k++) {
        for (int side = 0; side < 2; side++) {
            if ((apply->kind[side] == 1 && rb_is_nan(apply->bound[side])) ||
                (apply->kind[side] == 2 && rb_is_nan(rb_f64_of(apply->bounds[side], k)))) {
                return rb_refuse(board, RB_BAD_REQUEST, "a stop condition may not be NaN");
            }
        }
    }
    if (apply->repeat > MOST_READINGS || measured * apply->repeat > MOST_READINGS) {
        return rb_refuse(board, RB_RANGE, "too many readings of a cell");
    }
    apply->measured = (uint32_t)measured * apply->repeat;
    return rb_cells(board, apply->cells, apply->n);
}

static size_t reply_size(const struct rb_apply *apply) {
    size_t readings = (size_t)apply->n * apply->measured;
    return REPLY_HEAD + 8 * (size_t)apply->n + (apply->has_gates ? 33 : 25) * readings;
}

static struct rb_wear wear_of(const struct rb_board *board, uint32_t place) {
    const struct rb_apply *apply = &board->job.as.apply;
    struct rb_wear wear = {0, 0, 0};
    for (uint32_t step = 0; step < apply->steps.count; step++) {
        struct rb_shot shot;
        bool column, apart;
        rb_step_shot(board, &apply->steps, step, place, 0, &shot);
        rb_leaves(board, &shot, &column, &apart);
        wear.own += shot.is_pulse;
        wear.column += column;
        wear.apart += apart;
    }
    wear.own *= apply->repeat;
    wear.column *= apply->repeat;
    wear.apart *= apply->repeat;
    return wear;
}

static enum rb_error check(struct rb_board *board) {
    struct rb_apply *apply = &board->job.as.apply;
    const struct rb_envelope *can = board->can;
    enum rb_error error;
    if (apply->n > can->max_cells || (uint64_t)apply->steps.count * apply->repeat > can->max_steps) {
        rb_refuse(board, RB_RANGE, "APPLY: at most ");
        rb_say_number(board, can->max_cells);
        rb_say(board, " cells and steps x repeat ");
        rb_say_number(board, can->max_steps);
        return RB_RANGE;
    }
    if ((uint64_t)apply->n * apply->measured > can->max_message / 25 ||
        reply_size(apply) > can->max_message) {
        return rb_refuse(board, RB_RANGE, "APPLY: more readings than a reply holds");
    }
    error = rb_check_setting(board, board->job.scheme, board->job.compliance_a);
    error = error ? error : rb_check_steps(board, &apply->steps);
    for (uint32_t step = 0; !error && step < apply->steps.count; step++) {
        bool all_read = true;
        struct rb_shot shot;
        for (uint32_t k = 0; !error && k < apply->n; k++) {
            rb_step_shot(board, &apply->steps, step, k, rb_u32_of(apply->cells, k), &shot);
            error = rb_check_shot(board, &shot, board->job.compliance_a);
            all_read = all_read && rb_is_read(board, &shot);
        }
        if (!error && apply->n) {
            error = rb_check_width(board, &shot, all_read);
        }
    }
    return error ? error : rb_check_wear(board, apply->cells, apply->n, wear_of);
}

/* The columns of the reply. */
static uint8_t *pulses_at(struct rb_board *board) { return board->reply + REPLY_HEAD; }

static uint8_t *reads_at(struct rb_board *board) {
    return pulses_at(board) + 4 * (size_t)board->job.as.apply.n;
}

static uint8_t *measured_at(struct rb_board *board, int column) {
    const struct rb_apply *apply = &board->job.as.apply;
    return reads_at(board) + 4 * (size_t)apply->n +
           8 * (size_t)apply->n * apply->measured * (size_t)column;
}

/* Behind the status of each reading, so at any address. */
static uint8_t *gates_at(struct rb_board *board) {
    const struct rb_apply *apply = &board->job.as.apply;
    return measured_at(board, 3) + (size_t)apply->n * apply->measured;
}

static bool stresses_cells(const struct rb_board *board) {
    const struct rb_apply *apply = &board->job.as.apply;
    for (uint32_t step = 0; step < apply->steps.count; step++) {
        for (uint32_t k = 0; k < apply->n; k++) {
            struct rb_shot shot;
            rb_step_shot(board, &apply->steps, step, k, 0, &shot);
            if (!rb_is_read(board, &shot)) {
                return true;
            }
        }
    }
    return false;
}

static void begin(struct rb_board *board, struct rb_setup *setup) {
    struct rb_job *job = &board->job;
    const struct rb_apply *apply = &job->as.apply;
    uint32_t readings = apply->n * apply->measured;
    rb_reply_head(board, apply->n, reply_size(apply));
    rb_put32(board->reply + 24, apply->measured);
    rb_put32(board->reply + 28, 0);
    memset(pulses_at(board), 0, 8 * (size_t)apply->n);
    for (uint32_t k = 0; k < 3 * readings; k++) {
        rb_put_f64_of(measured_at(board, 0), k, rb_nan());
    }
    memset(measured_at(board, 3), RB_NOT_RUN, readings);
    for (uint32_t k = 0; apply->has_gates && k < readings; k++) {
        rb_put_f64_of(gates_at(board), k, rb_nan());
    }
    setup->scheme = job->scheme;
    setup->decides = apply->kind[0] || apply->kind[1];
    setup->compliance_a = job->compliance_a;
    if (rb_is_nan(setup->compliance_a) && (board->abilities & RB_HAS_COMPLIANCE) &&
        stresses_cells(board)) {
        setup->compliance_a = board->limits.current_a; /* what no cell may exceed */
    }
    setup->cells = apply->cells;
    setup->n = apply->n;
}

static bool stops(const struct rb_apply *apply, uint32_t place, double conductance_s,
                  uint8_t status) {
    double bound[2];
    for (int side = 0; side < 2; side++) {
        bound[side] = apply->kind[side] == 2 ? rb_f64_of(apply->bounds[side], place)
                                             : apply->bound[side];
    }
    return (apply->kind[0] && (conductance_s >= bound[0] || status == RB_OVER_RANGE)) ||
           (apply->kind[1] && conductance_s <= bound[1]);
}

/* One step further; false behind the last of the cell. */
static bool next_step(struct rb_apply *apply) {
    if (++apply->step < apply->steps.count) {
        return true;
    }
    apply->step = 0;
    return ++apply->turn < apply->repeat;
}

static void next_cell(struct rb_apply *apply) {
    apply->at++;
    apply->step = apply->turn = apply->reading = 0;
}

/* Shots up to the next decision, as many as a slice takes. */
static uint32_t collect(struct rb_board *board) {
    struct rb_apply ahead = board->job.as.apply;
    bool decides = ahead.kind[0] || ahead.kind[1];
    double left_s = rb_slice_s(board);
    uint32_t n = 0;
    while (n < RB_SHOTS && ahead.at < ahead.n && (n == 0 || left_s > 0.0)) {
        struct rb_shot *shot = &board->shots[n++];
        rb_step_shot(board, &ahead.steps, ahead.step, ahead.at, rb_u32_of(ahead.cells, ahead.at),
                     shot);
        left_s -= rb_shot_s(board, shot);
        if (!next_step(&ahead)) {
            next_cell(&ahead);
            if (decides) {
                break;
            }
        }
        if (decides && measures_current(shot->measure)) {
            break;
        }
    }
    return n;
}

static void take(struct rb_board *board, const struct rb_shot *shot, struct rb_reading *reading) {
    struct rb_apply *apply = &board->job.as.apply;
    uint8_t *pulses = pulses_at(board) + 4 * (size_t)apply->at;
    uint8_t *reads = reads_at(board) + 4 * (size_t)apply->at;
    bool is_stopped = false;
    rb_put32(pulses, rb_u32(pulses) + shot->is_pulse);
    if (shot->measure) {
        uint32_t place = apply->at * apply->measured + apply->reading++;
        double conductance_s = rb_conductance(shot, reading);
        rb_put32(reads, rb_u32(reads) + 1);
        rb_put_f64_of(measured_at(board, 0), place, reading->current_a);
        rb_put_f64_of(measured_at(board, 1), place, conductance_s);
        rb_put_f64_of(measured_at(board, 2), place, reading->time_s);
        measured_at(board, 3)[place] = reading->status;
        if (shot->measure == RB_BOTH) {
            rb_put_f64_of(gates_at(board), place, reading->gate_a);
        }
        is_stopped = measures_current(shot->measure) &&
                     stops(apply, apply->at, conductance_s, reading->status);
    }
    if (!next_step(apply) || is_stopped) {
        next_cell(apply);
    }
}

static enum rb_slice slice(struct rb_board *board) {
    struct rb_apply *apply = &board->job.as.apply;
    uint32_t reading = 0;
    int32_t done;
    if (apply->at >= apply->n) {
        return RB_DONE;
    }
    done = rb_run(board, collect(board));
    for (int32_t k = 0; k < done; k++) {
        take(board, &board->shots[k], &board->readings[reading]);
        reading += board->shots[k].measure != RB_NOTHING;
    }
    return done < 0 ? RB_FAILED : apply->at < apply->n ? RB_GOES_ON : RB_DONE;
}

const struct rb_operation rb_apply_operation = {parse, check, begin, slice, true};

static enum rb_error parse_wait(struct rb_board *board, struct rb_fields *fields) {
    const uint8_t *head = rb_take(fields, 1, 12);
    double seconds = head ? rb_f64(head + 4) : 0.0;
    if (!(seconds >= 0.0)) {
        return rb_refuse(board, RB_BAD_REQUEST, "WAIT takes a time of 0 s or more");
    }
    board->job.as.wait.until_s = seconds;
    return RB_FINE;
}

static enum rb_error check_wait(struct rb_board *board) {
    if (board->job.as.wait.until_s <= board->limits.wait_s) {
        return RB_FINE;
    }
    rb_refuse(board, RB_LIMIT, "wait of ");
    rb_say_number(board, board->job.as.wait.until_s);
    rb_say(board, " s is beyond the limit of ");
    rb_say_number(board, board->limits.wait_s);
    rb_say(board, " s");
    return RB_LIMIT;
}

static void begin_wait(struct rb_board *board, struct rb_setup *setup) {
    (void)setup;
    rb_reply_head(board, 0, 24);
}

static enum rb_slice slice_wait(struct rb_board *board) {
    const struct rb_hooks *hooks = board->hooks;
    /* Passed time is compared, not the clock's reading: an hour is the same at any age. */
    double left_s = board->job.as.wait.until_s - (hooks->clock_s(hooks->port) - board->job.started_s);
    double most_s = rb_slice_s(board);
    if (left_s > 0.0 && hooks->rest) {
        hooks->rest(hooks->port, left_s < most_s ? left_s : most_s);
        left_s = left_s < most_s ? 0.0 : left_s - most_s;
    }
    return left_s > 0.0 ? RB_GOES_ON : RB_DONE;
}

const struct rb_operation rb_wait_operation = {parse_wait, check_wait, begin_wait, slice_wait,
                                               false};

static enum rb_error parse_words(struct rb_board *board, struct rb_fields *fields) {
    struct rb_words *words = &board->job.as.words;
    const uint8_t *head = rb_take(fields, 1, 8);
    if (!head) {
        return RB_FINE;
    }
    words->n = rb_u32(head);
    words->clear = head[4] != 0;
    words->cells = rb_take(fields, words->n, 4);
    words->values = rb_take(fields, words->n, 4);
    return fields->is_short ? RB_FINE : rb_cells(board, words->cells, words->n);
}

static enum rb_error check_words(struct rb_board *board) {
    const struct rb_words *words = &board->job.as.words;
    int32_t top = (int32_t)((1u << (board->can->word_bits - 1)) - 1u);
    if (words->n > board->can->max_words) {
        return rb_refuse(board, RB_RANGE, "WRITE WORDS: more words than at most at once");
    }
    for (uint32_t k = 0; k < words->n; k++) {
        int32_t value = rb_i32(words->values + 4 * (size_t)k);
        if (value > top || value < -top) {
            rb_refuse(board, RB_RANGE, "|word|: ");
            rb_say_number(board, value);
            rb_say(board, ", at most ");
            rb_say_number(board, top);
            return RB_RANGE;
        }
    }
    return RB_FINE;
}

static void begin_words(struct rb_board *board, struct rb_setup *setup) {
    (void)setup;
    rb_reply_head(board, board->job.as.words.n, 24);
}

static enum rb_slice slice_words(struct rb_board *board) {
    const struct rb_words *words = &board->job.as.words;
    board->hooks->store_words(board->hooks->port, words->cells, words->values, words->n,
                              words->clear);
    return RB_DONE;
}

const struct rb_operation rb_words_operation = {parse_words, check_words, begin_words, slice_words,
                                                false};
