/* Section 5: commands without operation number. */
#include <string.h>

#include "internal.h"

static size_t put_string(uint8_t *at, const char *text) {
    size_t size = 0;
    while (text[size] && size < 60) { /* five of them fit `small` */
        at[1 + size] = (uint8_t)text[size];
        size++;
    }
    at[0] = (uint8_t)size;
    return 1 + size;
}

static size_t put_range(uint8_t *at, const struct rb_range_uv *range) {
    rb_put32(at, (uint32_t)range->low);
    rb_put32(at + 4, (uint32_t)range->high);
    rb_put32(at + 8, (uint32_t)range->step);
    return 12;
}

static size_t put_timing(uint8_t *at, const struct rb_envelope *can) {
    const char *names[7] = {"edge_s", "settle_s", "conversion_s", "multiply_s",
                            "word_s", "link_s",   "bytes_per_s"};
    const double times[7] = {can->edge_s, can->settle_s, can->conversion_s, can->multiply_s,
                             can->word_s, can->link_s,   can->bytes_per_s};
    size_t size = 1, n = can->bytes_per_s > 0.0 ? 7 : 5;
    at[0] = (uint8_t)n;
    for (size_t k = 0; k < n; k++) {
        size += put_string(at + size, names[k]);
        rb_put_f64(at + size, times[k]);
        size += 8;
    }
    return size;
}

static size_t put_identity(const struct rb_board *board, uint8_t *at) {
    const struct rb_envelope *can = board->can;
    size_t size = 144;
    memcpy(at, "RRAMTCB", 8);
    at[8] = at[9] = 1;
    at[10] = can->cell;
    at[11] = can->source_lines;
    rb_put32(at + 12, can->tiles);
    rb_put32(at + 16, can->rows);
    rb_put32(at + 20, can->columns);
    for (size_t line = 0; line < 3; line++) {
        put_range(at + 24 + 12 * line, &can->range[line]);
    }
    rb_put32(at + 60, can->schemes);
    rb_put64(at + 64, can->width_low_ps);
    rb_put64(at + 72, can->width_high_ps);
    rb_put64(at + 80, can->width_step_ps);
    rb_put32(at + 88, board->abilities);
    rb_put32(at + 92, can->max_cells);
    rb_put32(at + 96, can->max_steps);
    rb_put32(at + 100, can->max_vectors);
    rb_put32(at + 104, can->words);
    rb_put32(at + 108, can->max_words);
    at[112] = can->word_bits;
    at[113] = can->input_bits;
    at[114] = can->adc_bits;
    at[115] = 0;
    rb_put32(at + 116, can->max_payload);
    rb_put32(at + 120, can->max_message);
    rb_put32(at + 124, can->abort_us);
    rb_put_f64(at + 128, can->link_bytes_per_s);
    rb_put_f64(at + 136, can->pace);
    size += put_string(at + size, can->model);
    size += put_string(at + size, can->serial);
    size += put_string(at + size, can->firmware);
    size += put_string(at + size, can->chip);
    return size + put_timing(at + size, can);
}

static size_t put_status(const struct rb_board *board, uint8_t *at) {
    const struct rb_hooks *hooks = board->hooks;
    bool lost = hooks->words_lost && hooks->words_lost(hooks->port);
    at[0] = (uint8_t)((hooks->is_on(hooks->port) ? 1 : 0) | (board->is_armed ? 2 : 0) |
                      (board->job.is_active ? 4 : 0) | (board->is_tripped ? 8 : 0) |
                      (board->has_limits ? 16 : 0) | (lost ? 32 : 0));
    at[1] = at[2] = at[3] = 0;
    rb_put32(at + 4, board->last);
    rb_put32(at + 8, board->job.is_active ? board->job.number : 0);
    rb_put32(at + 12, board->watchdog_ms);
    rb_put32(at + 16, board->trips);
    return 20;
}

static size_t put_self_test(struct rb_board *board, uint8_t *at) {
    /* What can be found out with all switches open: they are, and the clock goes on. */
    const struct rb_hooks *hooks = board->hooks;
    size_t size = 1;
    bool is_on = hooks->is_on(hooks->port);
    at[0] = 1;
    at[size] = is_on ? 0 : 1;
    rb_put_f64(at + size + 1, is_on ? 1.0 : 0.0);
    size += 9;
    size += put_string(at + size, "switches closed");
    return size + put_string(at + size, "");
}

static enum rb_error set_limits(struct rb_board *board, const uint8_t *payload, size_t size) {
    struct rb_limits wanted = board->limits; /* with those of the body, which stay */
    enum rb_error error;
    if (size) {
        error = rb_read_limits(board, payload, size, &wanted);
        if (error) {
            return error;
        }
        board->limits = wanted;
        board->has_limits = true;
        board->is_armed = false;
    }
    rb_put_limits(board->small, &board->limits);
    return RB_FINE;
}

static enum rb_error set_body_limits(struct rb_board *board, const uint8_t *payload, size_t size) {
    if (size) {
        enum rb_error error = rb_read_body_limits(board, payload, size, &board->limits);
        if (error) {
            return error;
        }
        board->is_armed = false;
    }
    rb_put_body_limits(board->small, &board->limits);
    return RB_FINE;
}

static enum rb_error set_watchdog(struct rb_board *board, const uint8_t *payload, size_t size) {
    if (size != 4) {
        return rb_refuse(board, RB_BAD_REQUEST, "WATCHDOG takes 4 bytes");
    }
    if (rb_u32(payload) < 100 || rb_u32(payload) > 60000) {
        return rb_refuse(board, RB_RANGE, "watchdog: allowed are 100 to 60000 ms");
    }
    board->watchdog_ms = rb_u32(payload);
    rb_put32(board->small, board->watchdog_ms);
    return RB_FINE;
}

/* In the room of its request, which is the first half of the reply. */
static enum rb_error executed(struct rb_board *board, size_t size, size_t *reply) {
    const struct rb_hooks *hooks = board->hooks;
    uint8_t *message = board->message;
    uint32_t number, n;
    enum rb_error error;
    if (size < 8 || (size - 8) / 4 != rb_u32(message + 4) || (size - 8) % 4) {
        return rb_refuse(board, RB_BAD_REQUEST, "EXECUTED takes a number, n and n cells");
    }
    number = rb_u32(message);
    n = rb_u32(message + 4);
    if (n > (board->can->max_message - 8) / 8) {
        return rb_refuse(board, RB_RANGE, "EXECUTED: more cells than a reply holds");
    }
    error = rb_cells(board, message + 8, n);
    if (error) {
        return error;
    }
    for (uint32_t k = 0; k < n; k++) {
        uint8_t *at = message + 8 + 4 * (size_t)k;
        uint32_t last, pulses;
        hooks->recall(hooks->port, rb_u32(at), &last, &pulses);
        rb_put32(at, last == number ? pulses : 0);
        rb_put32(at + 4 * (size_t)n, last);
    }
    *reply = 8 + 8 * (size_t)n;
    return RB_FINE;
}

/* Commands without a payload; the size of the reply in `small`. */
static enum rb_error plain(struct rb_board *board, uint8_t type, uint32_t stopped, size_t *reply) {
    const struct rb_hooks *hooks = board->hooks;
    switch (type) {
    case RB_IDENTIFY:
        *reply = put_identity(board, board->small);
        return RB_FINE;
    case RB_ABORT:
        rb_put32(board->small, stopped);
        rb_put32(board->small + 4, hooks->is_on(hooks->port) ? 1 : 0);
        *reply = 8;
        return RB_FINE;
    case RB_SELF_TEST:
        *reply = put_self_test(board, board->small);
        return RB_FINE;
    case RB_ARM:
        if (!board->has_limits) {
            return rb_refuse(board, RB_NOT_ARMED, "limits have not been set since boot");
        }
        board->is_armed = true;
        board->is_tripped = false;
        break;
    case RB_SAFE_OFF:
        hooks->off(hooks->port);
        board->is_armed = false;
        break;
    default: /* STATUS */
        break;
    }
    *reply = put_status(board, board->small);
    return RB_FINE;
}

void rb_answer(struct rb_board *board, uint8_t type, uint32_t sequence, const uint8_t *payload,
               size_t size, uint32_t stopped) {
    size_t reply = 0;
    enum rb_error error;
    if (type == RB_LIMITS) {
        error = set_limits(board, payload, size);
        reply = 120;
    } else if (type == RB_BODY_LIMITS) {
        error = set_body_limits(board, payload, size);
        reply = 16;
    } else if (type == RB_WATCHDOG) {
        error = set_watchdog(board, payload, size);
        reply = 4;
    } else if (type == RB_EXECUTED) {
        error = executed(board, size, &reply);
        if (!error) {
            struct rb_outgoing answer = {board->message, reply, 0, sequence, type, 0};
            board->outgoing = answer;
            return;
        }
    } else if (size) {
        error = rb_refuse(board, RB_BAD_REQUEST, "this command has no payload");
    } else {
        error = plain(board, type, stopped, &reply);
    }
    if (error) {
        rb_send_error(board, type, sequence, error, 0);
    } else {
        rb_send(board, type, sequence, 0, board->small, reply);
    }
}
