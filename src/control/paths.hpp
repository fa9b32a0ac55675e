// Where running machines and stores are found.
#pragma once

#include <string>
#include <vector>

#include "src/base/result.hpp"

namespace nestor::control {

/// The directory of control sockets: $XDG_RUNTIME_DIR/nestor, or /tmp/nestor-UID where that is not
/// set. Makes it, for its owner only; fails where it belongs to somebody else.
[[nodiscard]] Result<std::string> socket_directory();

/// Path of the socket of the machine `name`. Fails (usage) on a name that is none and on a path
/// that does not fit into a socket address.
[[nodiscard]] Result<std::string> socket_path(const std::string& name);

/// Fails (usage) where `path` does not fit into a socket address.
[[nodiscard]] Result<> check_socket_path(const std::string& path);

/// Names of the sockets in the socket directory, sorted. Not all of them need to be alive.
[[nodiscard]] Result<std::vector<std::string>> socket_names();

/// `given`, or $NESTOR_STORE, or $XDG_DATA_HOME/nestor, or ~/.local/share/nestor.
[[nodiscard]] Result<std::string> store_directory(const std::string& given);

} // namespace nestor::control
