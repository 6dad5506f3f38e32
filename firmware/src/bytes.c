/* Numbers in messages and their check sums. */
#include <string.h>

#include "internal.h"

uint16_t rb_u16(const uint8_t *at) { return (uint16_t)(at[0] | (at[1] << 8)); }

uint32_t rb_u32(const uint8_t *at) {
    return (uint32_t)rb_u16(at) | ((uint32_t)rb_u16(at + 2) << 16);
}

int32_t rb_i32(const uint8_t *at) {
    uint32_t bits = rb_u32(at);
    int32_t value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint64_t rb_u64(const uint8_t *at) { return rb_u32(at) | ((uint64_t)rb_u32(at + 4) << 32); }

double rb_f64(const uint8_t *at) {
    uint64_t bits = rb_u64(at);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint32_t rb_u32_of(const uint8_t *column, uint32_t place) {
    return rb_u32(column + 4 * (size_t)place);
}

double rb_f64_of(const uint8_t *column, uint32_t place) {
    return rb_f64(column + 8 * (size_t)place);
}

void rb_put16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

void rb_put32(uint8_t *at, uint32_t value) {
    rb_put16(at, (uint16_t)value);
    rb_put16(at + 2, (uint16_t)(value >> 16));
}

void rb_put64(uint8_t *at, uint64_t value) {
    rb_put32(at, (uint32_t)value);
    rb_put32(at + 4, (uint32_t)(value >> 32));
}

void rb_put_f64(uint8_t *at, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    rb_put64(at, bits);
}

void rb_put_f64_of(uint8_t *column, uint32_t place, double value) {
    rb_put_f64(column + 8 * (size_t)place, value);
}

/* Four bits at a time: a table of 64 bytes. */
uint32_t rb_crc32(uint32_t crc, const uint8_t *bytes, size_t size) {
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
        0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
        0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    crc = ~crc;
    while (size--) {
        crc ^= *bytes++;
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

/* Towards lower addresses, where the two may overlap. */
void rb_copy(uint8_t *to, const uint8_t *from, size_t size) {
    while (size--) {
        *to++ = *from++;
    }
}

const uint8_t *rb_take(struct rb_fields *fields, uint64_t count, uint32_t size) {
    const uint8_t *taken = fields->at;
    if (count > fields->left / size) {
        fields->is_short = true;
        return NULL;
    }
    fields->at += (size_t)count * size;
    fields->left -= (size_t)count * size;
    return taken;
}
