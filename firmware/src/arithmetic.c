/* Doubles without a mathematical library. */
#include <string.h>

#include "internal.h"

static uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

bool rb_is_nan(double x) { return x != x; }

bool rb_is_finite(double x) { return x - x == 0.0; }

double rb_nan(void) { return double_of(0x7FF8000000000000u); }

double rb_abs(double x) { return double_of(bits_of(x) & 0x7FFFFFFFFFFFFFFFu); }

/* x times a power of two, both of normal size. */
static double scaled(double x, int exponent) {
    return x * double_of((uint64_t)(exponent + 1023) << 52);
}

/* One bit of the root after the other, as with pencil and paper. */
uint64_t rb_root(uint64_t x) {
    uint64_t root = 0, bit = (uint64_t)1 << 62;
    while (bit > x) {
        bit >>= 2;
    }
    for (; bit; bit >>= 2) {
        if (x >= root + bit) {
            x -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return root;
}

/* The same on a mantissa of 53 bits, two of its bits a turn, then one bit more to round by; so it
 * is the double nearest to the root. */
double rb_sqrt(double x) {
    uint64_t mantissa, root = 0, rest = 0;
    int exponent;
    if (!(x > 0.0) || !rb_is_finite(x)) {
        return x < 0.0 ? rb_nan() : x;
    }
    if (x < 1e-290) { /* subnormal numbers have no leading bit */
        return scaled(rb_sqrt(scaled(x, 200)), -100);
    }
    mantissa = (bits_of(x) & 0xFFFFFFFFFFFFFu) | (uint64_t)1 << 52;
    exponent = (int)(bits_of(x) >> 52) - 1023;
    if (exponent & 1) {
        mantissa <<= 1;
        exponent -= 1;
    }
    for (int turn = 0; turn < 54; turn++) {
        uint64_t trial = root << 2 | 1u;
        rest = rest << 2 | (mantissa >> 52 & 3u);
        mantissa = (mantissa & 0xFFFFFFFFFFFFFu) << 2;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1u;
        }
    }
    /* 54 bits; the last one is half of the one before. It is never just half: no rest is 0 then. */
    return scaled((double)((root >> 1) + (root & 1u)), exponent / 2 - 52);
}

double rb_rint(double x) {
    /* Beyond 2^52 every double is whole; adding it lets the processor round. */
    volatile double large = 4503599627370496.0;
    if (!(rb_abs(x) < large)) {
        return x;
    }
    if (x < 0.0) {
        volatile double sum = x - large;
        return sum + large;
    } else {
        volatile double sum = x + large;
        return sum - large;
    }
}

double rb_exp(double x) {
    const double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
    double turns, r, term = 1.0, sum = 1.0;
    if (!(x > -700.0)) {
        return rb_is_nan(x) ? x : 0.0;
    }
    if (x > 700.0) {
        return double_of(0x7FF0000000000000u);
    }
    turns = rb_rint(x * 1.4426950408889634);
    r = (x - turns * ln2_high) - turns * ln2_low;
    for (int k = 1; k < 18; k++) {
        term *= r / k;
        sum += term;
    }
    return scaled(sum, (int)turns);
}

double rb_cos_turns(double turns) {
    double x, square, term = 1.0, sum = 1.0, sign = 1.0;
    x = rb_abs(turns - rb_rint(turns)); /* 0 to half a turn */
    if (x > 0.25) {
        x = 0.5 - x;
        sign = -1.0;
    }
    x *= 6.283185307179586;
    square = x * x;
    for (int k = 1; k < 24; k += 2) {
        term *= -square / (k * (k + 1));
        sum += term;
    }
    return sign * sum;
}
