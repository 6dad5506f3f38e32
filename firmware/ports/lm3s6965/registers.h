/* What this port uses of an LM3S6965 (Cortex-M3, 256 KiB flash, 64 KiB RAM). Addresses, bits and
 * interrupt numbers are those that QEMU's machine lm3s6965evb emulates (its sources
 * hw/arm/stellaris.c and hw/char/pl011.c) and, for the core, those of every ARMv7-M. */
#ifndef REGISTERS_H
#define REGISTERS_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* System control: clocks. */
#define SYSCTL_RIS REGISTER(0x400FE050u)
#define SYSCTL_RCC REGISTER(0x400FE060u)
#define SYSCTL_RCGC1 REGISTER(0x400FE104u)
#define SYSCTL_RCGC2 REGISTER(0x400FE108u)
#define RIS_PLL_LOCKED (1u << 6)
#define RCC_BYPASS (1u << 11)
#define RCC_PLL_OFF (1u << 13)
#define RCC_DIVIDE (1u << 22)
#define RCC_DIVISOR(n) (((n) - 1u) << 23) /* of the 200 MHz behind the PLL */
#define RCC_CRYSTAL_8MHZ (14u << 6)
#define RCGC1_UART0 1u
#define RCGC2_GPIOA 1u

/* Pins 0 and 1 of port A belong to the UART. */
#define GPIOA_AFSEL REGISTER(0x40004420u)
#define GPIOA_DEN REGISTER(0x4000451Cu)

/* UART 0, a PL011. */
#define UART0_DR REGISTER(0x4000C000u)
#define UART0_FR REGISTER(0x4000C018u)
#define UART0_IBRD REGISTER(0x4000C024u)
#define UART0_FBRD REGISTER(0x4000C028u)
#define UART0_LCRH REGISTER(0x4000C02Cu)
#define UART0_CTL REGISTER(0x4000C030u)
#define UART0_IM REGISTER(0x4000C038u)
#define UART0_ICR REGISTER(0x4000C044u)
#define FR_NOTHING_CAME (1u << 4)
#define FR_FULL (1u << 5)
#define LCRH_8_BITS_FIFO (0x60u | 0x10u)
#define CTL_ON (1u | 1u << 8 | 1u << 9)
#define INTERRUPT_CAME (1u << 4 | 1u << 6) /* bytes, or a pause behind some */
#define UART0_INTERRUPT 5u

/* The core: timer and interrupt controller. */
#define SYSTICK_CTRL REGISTER(0xE000E010u)
#define SYSTICK_LOAD REGISTER(0xE000E014u)
#define SYSTICK_VAL REGISTER(0xE000E018u)
#define SYSTICK_ON 7u /* count the core's clock, interrupt */
#define NVIC_ENABLE REGISTER(0xE000E100u)

#endif
