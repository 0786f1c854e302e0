#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <string>
#include <vector>

namespace vicreg::store {

// Every connection opened while one of these lives, in order: the store's writer first, then its reader.
class Connections {
 public:
  Connections() {
    open().clear();
    sqlite3_auto_extension(reinterpret_cast<void (*)()>(&Opened));
  }
  ~Connections() { sqlite3_cancel_auto_extension(reinterpret_cast<void (*)()>(&Opened)); }

  // The disk of the first connection is full after `pages` pages.
  static void LimitPages(int pages) { Run("PRAGMA max_page_count=" + std::to_string(pages)); }
  static void Run(const std::string& sql) {
    ASSERT_EQ(sqlite3_exec(open().at(0), sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
  }

 private:
  static std::vector<sqlite3*>& open() {
    static std::vector<sqlite3*> connections;
    return connections;
  }
  static int Opened(sqlite3* connection, char**, const void*) {
    open().push_back(connection);
    return SQLITE_OK;
  }
};

}  // namespace vicreg::store
