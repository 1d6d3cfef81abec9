// nlohmann-json with its exceptions turned into Error, nesting bounded and duplicate keys refused.
#include "io/json.h"

#include <set>
#include <vector>

#include "engine/error.h"
#include "io/bytes.h"

namespace nc {

Json parse_json(const std::string& text, const std::string& path) {
    constexpr int deepest = 200;              // printing and comparing recurse
    std::vector<std::set<std::string>> keys;  // of the objects that are open, by depth
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
        using Event = Json::parse_event_t;
        if (event == Event::object_start || event == Event::array_start) {
            if (depth >= deepest)
                throw Error("[" + path + "] JSON nested deeper than " + std::to_string(deepest),
                            ErrorKind::data);
            keys.resize(size_t(depth) + 1);
            keys.emplace_back();
        } else if (event == Event::key) {
            const auto& key = value.get_ref<const std::string&>();
            if (!keys[size_t(depth)].insert(key).second)
                throw Error("[" + path + "] key '" + key + "' stands twice in one JSON object",
                            ErrorKind::data);
        }
        return true;
    };
    try {
        return Json::parse(text, watch);
    } catch (const Json::parse_error& e) {
        const std::string what = e.what();  // "[json.exception...] parse error at ...: reason"
        const size_t reason = what.find(": ");
        throw Error("[" + path + "] not valid JSON at byte " + std::to_string(e.byte) + ": " +
                        (reason == std::string::npos ? what : what.substr(reason + 2)),
                    ErrorKind::data);
    } catch (const Json::exception& e) {
        throw Error("[" + path + "] not valid JSON: " + e.what(), ErrorKind::data);
    }
}

Json read_json(const std::string& path) {
    constexpr size_t largest = size_t(1) << 28;
    const auto bytes = read_file(path, largest);
    return parse_json(std::string(bytes.begin(), bytes.end()), path);
}

void write_json(const std::string& path, const Json& value) {
    write_file(path, value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace nc
