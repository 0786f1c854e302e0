# The metric history, verdicts, the Prometheus page with its reference document, and the HTTP listener.
vicreg_test(telemetry_history_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/history_test.cc LIBS vicreg_telemetry)
vicreg_test(telemetry_verdict_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/verdict_test.cc LIBS vicreg_telemetry)
vicreg_test(telemetry_exposition_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/exposition_test.cc ${CMAKE_CURRENT_LIST_DIR}/prometheus_text.cc LIBS vicreg_telemetry)
vicreg_test(web_server_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/web_server_test.cc LIBS vicreg_web)
