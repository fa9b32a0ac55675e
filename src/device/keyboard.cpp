// Intel 8042 keyboard controller with nothing plugged in.
//
// Owns the controller's registers. Bytes for the keyboard or the mouse are taken and never
// answered, so a driver's probe ends without finding one. The reset line is output port bit 0:
// pulsed by commands 0xf0 to 0xfe with bit 0 clear, or written low with command 0xd1.
#include "src/device/keyboard.hpp"

namespace nestor::device {
namespace {

constexpr u8 read_configuration = 0x20;
constexpr u8 write_configuration = 0x60;
constexpr u8 test_mouse_port = 0xa9;
constexpr u8 self_test = 0xaa;
constexpr u8 test_keyboard_port = 0xab;
constexpr u8 read_output_port = 0xd0;
constexpr u8 write_output_port = 0xd1;
constexpr u8 first_data_to_mouse = 0xd2; // 0xd2 to 0xd4 take a byte too
constexpr u8 last_data_to_mouse = 0xd4;

constexpr u8 status_system = 0x04;
constexpr u8 status_unlocked = 0x10;

bool takes_data(u8 command) {
    return command == write_configuration || command == write_output_port ||
           (command >= first_data_to_mouse && command <= last_data_to_mouse);
}

} // namespace

void Keyboard::answer(u8 value) {
    s_.output = value;
    s_.output_full = true;
}

u8 Keyboard::read(u16 port) {
    if (port == 0x64) {
        return static_cast<u8>(status_unlocked | status_system | (s_.output_full ? 1 : 0));
    }
    s_.output_full = false;
    return s_.output;
}

bool Keyboard::write(u16 port, u8 value) { return port == 0x64 ? command(value) : data(value); }

bool Keyboard::command(u8 value) {
    s_.command = takes_data(value) ? value : 0;
    switch (value) {
    case read_configuration:
        answer(s_.configuration);
        return false;
    case self_test:
        answer(0x55);
        return false;
    case test_keyboard_port:
    case test_mouse_port:
        answer(0x01); // clock line stuck low: nothing there
        return false;
    case read_output_port:
        answer(s_.output_port);
        return false;
    default:
        return value >= 0xf0 && (value & 1) == 0;
    }
}

bool Keyboard::data(u8 value) {
    const u8 waiting = s_.command;
    s_.command = 0;
    if (waiting == write_configuration) {
        s_.configuration = value;
    } else if (waiting == write_output_port) {
        s_.output_port = value;
        return (value & 1) == 0;
    }
    return false;
}

Result<> Keyboard::load(const state::Keyboard& from) {
    if (from.command != 0 && !takes_data(from.command)) {
        return fail(ErrorCode::corrupt, "command: not one that waits for data");
    }
    s_ = from;
    return {};
}

} // namespace nestor::device
