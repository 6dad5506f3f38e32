#include "load.h"

static const double SET_V = 0.9, RESET_V = 0.6, OPENS_V = 0.7;
static const double LEAST_S = 2e-6, PER_GATE_S = 1e-4;

static double conductance_s[LOAD_CELLS];

void load_begin(void) {
    for (uint32_t cell = 0; cell < LOAD_CELLS; cell++) {
        conductance_s[cell] = 10e-6 + 1e-6 * (cell % 8); /* each another one */
    }
}

void load_pulse(uint32_t cell, double bl_v, double sl_v, double gate_v) {
    double *g = &conductance_s[cell], open_v = gate_v - OPENS_V;
    if (open_v <= 0.0) {
        return;
    }
    if (bl_v - sl_v > SET_V && *g < open_v * PER_GATE_S) {
        *g += 0.25 * (open_v * PER_GATE_S - *g); /* the transistor holds it back */
    } else if (sl_v - bl_v > RESET_V) {
        *g -= 0.1 * (sl_v - bl_v - RESET_V) * (*g - LEAST_S) + 0.02 * (*g - LEAST_S);
    }
}

double load_current_a(uint32_t cell, double bl_v, double sl_v, double gate_v) {
    return gate_v > OPENS_V ? (bl_v - sl_v) * conductance_s[cell] : 0.0;
}
