// A small writer of ACPI Machine Language: ACPI 6.4 chapter 20.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "src/base/types.hpp"

namespace nestor::machine::aml {

/// A term of AML: its encoded bytes.
using Term = std::vector<u8>;

/// ZeroOp, OneOp, or the shortest constant prefix (20.2.3).
[[nodiscard]] Term integer(u64 value);
/// A string of printable characters (20.2.3).
[[nodiscard]] Term string(std::string_view text);
/// An EISA identifier such as "PNP0501" as the compressed integer of `EISAID()` (19.3.4).
[[nodiscard]] Term eisa_id(std::string_view id);
/// `Package () {elements}`; at most 255 elements (20.2.5.4).
[[nodiscard]] Term package(std::initializer_list<Term> elements);
/// `Name (name, value)`; `name` is one segment of up to four characters (20.2.5.1).
[[nodiscard]] Term name(std::string_view name, const Term& value);
/// `Device (name) {terms}` (20.2.5.2).
[[nodiscard]] Term device(std::string_view name, std::initializer_list<Term> terms);
/// `Scope (\name) {terms}` (20.2.5.1).
[[nodiscard]] Term scope(std::string_view name, const std::vector<Term>& terms);

/// `Method (name) {terms}` without arguments (20.2.5.2).
[[nodiscard]] Term method(std::string_view name, std::initializer_list<Term> terms);
/// `Notify (\scope.name, value)` (20.2.5.3).
[[nodiscard]] Term notify(std::string_view scope, std::string_view name, u8 value);

/// `IO (Decode16, first, first, 1, count)` (6.4.2.5).
[[nodiscard]] Term io_ports(u16 first, u8 count);
/// `IRQNoFlags () {irq}` (6.4.2.1).
[[nodiscard]] Term irq(unsigned number);
/// `ResourceTemplate () {resources}`: a buffer that ends with an end tag (6.4.2.9).
[[nodiscard]] Term resource_template(std::initializer_list<Term> resources);

} // namespace nestor::machine::aml
