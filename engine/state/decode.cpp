#include "engine/state/codec.hpp"
