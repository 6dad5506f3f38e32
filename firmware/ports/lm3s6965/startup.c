/* From reset to main, and the two functions of a C library that the board needs. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t data_start[], data_end[], data_image[], bss_start[], bss_end[], stack_end[];
int main(void);
void reset(void);
void systick(void);
void uart0(void);

static void fault(void) {
    for (;;) { /* outputs: a watchdog of the hardware must end this */
    }
}

void reset(void) {
    const uint32_t *from = data_image;
    for (uint32_t *to = data_start; to < data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }
    main();
    fault();
}

static const struct {
    uint32_t *stack;
    void (*handlers[15 + 6])(void); /* of the core, then of the chip */
} vectors __attribute__((section(".vectors"), used)) = {
    stack_end,
    {reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
     systick, fault, fault, fault, fault, fault, uart0},
};

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    uint8_t *t = to;
    const uint8_t *f = from;
    while (size--) {
        *t++ = *f++;
    }
    return to;
}

void *memset(void *to, int value, size_t size) {
    uint8_t *t = to;
    while (size--) {
        *t++ = (uint8_t)value;
    }
    return to;
}
