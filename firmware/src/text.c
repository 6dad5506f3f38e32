/* One line for a person: numbers as %g writes them. */
#include <string.h>

#include "internal.h"

enum { DIGITS = 6 };

static void add(struct rb_board *board, char c) {
    size_t size = 0;
    while (board->text[size]) {
        size++;
    }
    if (size + 1 < RB_TEXT) {
        board->text[size] = c;
        board->text[size + 1] = 0;
    }
}

void rb_say(struct rb_board *board, const char *text) {
    while (*text) {
        add(board, *text++);
    }
}

enum rb_error rb_refuse(struct rb_board *board, enum rb_error error, const char *what) {
    board->text[0] = 0;
    rb_say(board, what);
    return error;
}

static void say_whole(struct rb_board *board, uint64_t value) {
    char digits[21];
    int n = 0;
    do {
        digits[n++] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value);
    while (n) {
        add(board, digits[--n]);
    }
}

void rb_say_number(struct rb_board *board, double value) {
    uint32_t whole;
    int exponent = 0, digits = DIGITS;
    char text[DIGITS];
    if (rb_is_nan(value)) {
        rb_say(board, "nan");
        return;
    }
    if (value < 0.0) {
        add(board, '-');
        value = -value;
    }
    if (value == 0.0 || !rb_is_finite(value)) {
        rb_say(board, value == 0.0 ? "0" : "inf");
        return;
    }
    if (value < 1e15 && value == (double)(uint64_t)value) {
        say_whole(board, (uint64_t)value); /* counts are told whole */
        return;
    }
    for (; value >= 10.0; exponent++) {
        value /= 10.0;
    }
    for (; value < 1.0; exponent--) {
        value *= 10.0;
    }
    whole = (uint32_t)rb_rint(value * 1e5);
    if (whole >= 1000000u) {
        whole /= 10u;
        exponent++;
    }
    for (int k = DIGITS; k--; whole /= 10u) {
        text[k] = (char)('0' + whole % 10u);
    }
    while (digits > 1 && text[digits - 1] == '0') {
        digits--;
    }
    if (exponent >= 0 && exponent < DIGITS) {
        for (int k = 0; k < digits || k <= exponent; k++) {
            if (k == exponent + 1) {
                add(board, '.');
            }
            add(board, k < digits ? text[k] : '0');
        }
    } else if (exponent < 0 && exponent >= -4) {
        rb_say(board, "0.");
        for (int k = -1; k > exponent; k--) {
            add(board, '0');
        }
        for (int k = 0; k < digits; k++) {
            add(board, text[k]);
        }
    } else {
        for (int k = 0; k < digits; k++) {
            if (k == 1) {
                add(board, '.');
            }
            add(board, text[k]);
        }
        rb_say(board, exponent < 0 ? "e-" : "e+");
        if (exponent > -10 && exponent < 10) {
            add(board, '0');
        }
        say_whole(board, (uint64_t)(exponent < 0 ? -exponent : exponent));
    }
}

void rb_say_cell(struct rb_board *board, uint32_t cell) {
    const struct rb_envelope *can = board->can;
    rb_say(board, "cell (");
    say_whole(board, cell / can->columns / can->rows);
    rb_say(board, ", ");
    say_whole(board, cell / can->columns % can->rows);
    rb_say(board, ", ");
    say_whole(board, cell % can->columns);
    rb_say(board, ")");
}
